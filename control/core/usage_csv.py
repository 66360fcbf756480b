"""Writes lines of usage as CSV: what tells them apart, sums, and amounts."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import datetime

from domain import spreadsheets
from schemas.base import rfc3339
from schemas.money import Dimension, UsageLine

SUMS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cached_input_tokens",
    "corrections",
    "corrected_input_tokens",
    "corrected_output_tokens",
    "currency",
    "amount",
)


def columns(by: Sequence[Dimension]) -> tuple[str, ...]:
    """Return the header of lines by these dimensions."""
    last_used = ("last_used_at",) if Dimension.KEY in by else ()
    return (*(dimension.value for dimension in by), *last_used, *SUMS)


def written(by: Sequence[Dimension], lines: Iterable[UsageLine]) -> str:
    """Return a header and one line for each, as RFC 4180 says; what a spreadsheet would calculate is made text."""
    file = io.StringIO()
    writer = csv.writer(file)
    names = columns(by)
    writer.writerow(names)
    for line in lines:
        writer.writerow(cells(names, line))
    return file.getvalue()


def cells(names: Sequence[str], line: UsageLine) -> list[object]:
    """Return a line's values of these columns; None where it has none."""
    return [_cell(name, getattr(line, name)) for name in names]


def _cell(name: str, value: object) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    return spreadsheets.safe(value) if isinstance(value, str) and name not in SUMS else value
