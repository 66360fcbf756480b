"""Migrations are one chain, each named by its number: two that were written side by side are seen before they meet."""

import re

from tests.architecture import sources

_FACT = re.compile(r"^(revision|down_revision) = '?(\w+)'?$", re.MULTILINE)


def test_migrations_are_one_chain_by_their_numbers() -> None:
    files = sorted(path for path in sources.files() if path.parent.name == "versions" and path.name[0] == "0")
    found = [dict(_FACT.findall((sources.ROOT / path).read_text(encoding="utf-8"))) for path in files]
    numbers = [f"{number:04}" for number in range(1, len(files) + 1)]
    assert [path.name[:4] for path in files] == numbers
    assert [one["revision"] for one in found] == numbers
    assert [one["down_revision"] for one in found] == ["None", *numbers[:-1]]
