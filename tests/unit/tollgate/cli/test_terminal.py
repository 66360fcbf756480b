"""What others named, on the operator's terminal and in a spreadsheet."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.store.pages import LedgerEntry
from tests.unit.metering.factories import event
from tollgate.cli import events, terminal
from tollgate.reports import exports


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("customer-17 räksmörgås 客户 🙂", "customer-17 räksmörgås 客户 🙂"),
        ("\x1b[2J\x1b]0;owned\x07", r"\x1b[2J\x1b]0;owned\x07"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\x9b31m", r"\x9b31m"),
        ("a\u202eb\u2066", r"a\u202eb\u2066"),
        ("a\u2028b", r"a\u2028b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_a_terminal_obeys_is_escaped(text: str, shown: str) -> None:
    assert terminal.safe(text) == shown


@given(st.text())
def test_no_text_keeps_anything_that_is_obeyed(text: str) -> None:
    shown = terminal.safe(text)
    assert shown.isprintable() or not any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in shown)
    assert "\n" not in shown


def test_an_event_of_the_tail_is_one_line_without_controls() -> None:
    """Ids of groups that were made before they were refused."""
    entry = LedgerEntry(event(1, external_entity_id="\x1b]52;c;Y3VybA==\x07\nforged"), event(1).timestamp)
    line = events._as_line(entry)
    assert "\x1b" not in line
    assert "\n" not in line


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_spreadsheet_calculates_no_cell(start: str) -> None:
    file = io.StringIO()
    exports._csv([LedgerEntry(event(1, external_entity_id=f"{start}cmd|' /C calc'!A0"), event(1).timestamp)], file, {})
    (row,) = csv.DictReader(io.StringIO(file.getvalue(), newline=""))
    assert row["external_entity_id"] == f"'{start}cmd|' /C calc'!A0"
    assert row["input_tokens"] == "10"
