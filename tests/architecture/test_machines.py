"""No file of ours knows the machine it was written on, or where packages come from."""

import re

import pytest

from tests.architecture import sources

HOSTS = [
    ".".join(parts)
    for parts in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("maven", "org"),
        ("crates", "io"),
        ("docker", "io"),
        ("proxy", "golang"),
    ]
]
HOME = re.compile(r"(?<![\w.:/-])/(?:home|root|Users|work)/\w[^\s\"'`]*|[A-Z]:\\Users\\")


def findings(text: str) -> list[str]:
    return [match.group() for match in HOME.finditer(text)] + [host for host in HOSTS if host in text]


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in sources.files():
        text = (sources.ROOT / path).read_text(encoding="utf-8", errors="replace")
        found += [f"{path}: {what}" for what in findings(text) if path.name != "test_machines.py"]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("text", ["cd /home/someone/tollgate", f"--index https://{HOSTS[0]}/simple", 'p = "/root/x"'])
def test_the_rule_sees_them(text: str) -> None:
    assert findings(text)


@pytest.mark.parametrize("text", ["GET /v1/models", "https://example.com/home/page", "/var/lib/tollgate"])
def test_the_rule_lets_the_rest_be(text: str) -> None:
    assert not findings(text)
