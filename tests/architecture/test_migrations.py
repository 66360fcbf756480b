"""The migrations are one chain: two that were written beside each other would leave no server that starts."""

import re

from tests.architecture import sources

VERSIONS = "tollgate/migrations/versions"
REVISION = re.compile(r"^(down_)?revision = (?:'(\w+)'|None)$", re.MULTILINE)


def links() -> list[tuple[str, str, str]]:
    """Return of each file its number, its revision, and the one before it ("" for the first)."""
    found = []
    for path in sorted((sources.ROOT / VERSIONS).glob("[0-9]*.py")):
        said = dict(REVISION.findall(path.read_text(encoding="utf-8")))
        found.append((path.name.partition("_")[0], said[""], said["down_"]))
    return found


def test_each_migration_follows_the_one_before() -> None:
    numbers = [number for number, _, _ in links()]
    assert [revision for _, revision, _ in links()] == numbers
    assert [before for _, _, before in links()] == ["", *numbers[:-1]]
    assert len(set(numbers)) == len(numbers)
