"""The table of docs/developers.md says what becomes of each field; each of its rows is tried."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from proxy.dialects.chat import Invalid
from tests.architecture import sources
from tests.unit.proxy.dialects.anthropic.sdk import attempt

PAGE = sources.ROOT / Path("docs/developers.md")
ROW = re.compile(r"^\| ([^|]+) \| `(\{.*?\})` \| (.+) \|$", re.MULTILINE)


def becomes(members: dict[str, Any]) -> str:
    """Return the table's last cell: what is sent that an empty request would not send, or 400 and the field."""
    found, plain = attempt(**members), attempt()
    if isinstance(found, Invalid):
        return f"400 `{found.param}`"
    assert not isinstance(plain, Invalid)
    sent = {name: value for name, value in found.items() if plain.get(name) != value}
    return f"`{json.dumps(sent)}`" if sent else "dropped"


ROWS = ROW.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "members", "told"), ROWS, ids=[name for name, _, _ in ROWS])
def test_a_row_of_the_table(name: str, members: str, told: str) -> None:
    assert becomes(json.loads(members)) == told


def test_the_table_is_there() -> None:
    assert len(ROWS) > 25
