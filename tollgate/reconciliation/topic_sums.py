"""Sums up the records of the usage topic by workspace and day, each event once however often it is there (contract 4).

A day's keys and counts go to a temporary SQLite file of some 60 bytes an event.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from domain import days, validity
from domain.ledger_days import Days
from domain.validity import UnreadableError
from schemas.usage import Kind
from tollgate.reconciliation.accounts import AccountSums, Figures, Period, UnreadableRecord, WorkspaceDay

NAMED = 100
"""How many unreadable records are named; the others are only counted."""

_SCHEMA = """
PRAGMA journal_mode=OFF;
PRAGMA synchronous=OFF;
PRAGMA cache_size=-65536;
CREATE TABLE event (key TEXT PRIMARY KEY, place INTEGER, correction INTEGER, input INTEGER, output INTEGER,
    counted INTEGER, taken INTEGER) WITHOUT ROWID;
"""
_ADD = """
INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key)
DO UPDATE SET counted = max(counted, excluded.counted), taken = max(taken, excluded.taken)
"""
_SUMS = """
SELECT place,
    sum(counted AND NOT correction),
    sum(input) FILTER (WHERE counted AND NOT correction),
    sum(output) FILTER (WHERE counted AND NOT correction),
    sum(counted AND correction),
    sum(input) FILTER (WHERE counted AND correction),
    sum(output) FILTER (WHERE counted AND correction),
    sum(counted - taken), sum((counted - taken) * input), sum((counted - taken) * output)
FROM event GROUP BY place
"""


class TopicRecord(Protocol):
    """What is read of a record."""

    @property
    def partition(self) -> int:
        """Its partition."""

    @property
    def offset(self) -> int:
        """Its place there."""

    @property
    def value(self) -> bytes | None:
        """The event; None: a tombstone."""


class TopicSums:
    """One sum. `counted_to` and `taken_to` are metering's and intake's positions by partition. Close it after use."""

    def __init__(
        self, period: Period, counted_to: Mapping[int, int], taken_to: Mapping[int, int], open_days: Days
    ) -> None:
        self._period = period
        self._open_days = open_days
        self._counted_to = counted_to
        self._taken_to = taken_to
        self._places: dict[WorkspaceDay, int] = {}
        self._scratch = sqlite3.connect("", isolation_level=None)  # a file without a name, gone when it is closed
        self._scratch.executescript(_SCHEMA)
        self.unreadable = 0
        """Records that metering has passed and that are no usage event."""
        self.named: list[UnreadableRecord] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._scratch.close()

    def take(self, records: Sequence[TopicRecord]) -> None:
        """Add records, those of one partition in their order."""
        self._scratch.execute("BEGIN")
        self._scratch.executemany(_ADD, filter(None, map(self._row, records)))
        self._scratch.execute("COMMIT")

    def sums(self) -> tuple[dict[WorkspaceDay, Figures], dict[WorkspaceDay, AccountSums]]:
        """Return what metering has passed, and what of it intake has not (negative where intake is ahead)."""
        places = list(self._places)
        found = self._scratch.execute(_SUMS).fetchall()
        figures = {places[place]: Figures(*(figure or 0 for figure in row[:6])) for place, *row in found}
        lag = {places[place]: AccountSums(*row[6:]) for place, *row in found}
        return figures, {place: sums for place, sums in lag.items() if any(sums)}

    def _row(self, record: TopicRecord) -> tuple[str, int, bool, int, int, bool, bool] | None:
        counted = record.offset < self._counted_to[record.partition]
        try:
            event = validity.read(record.value, self._open_days)
        except UnreadableError as error:
            if counted:
                self._note(record, str(error))
            return None
        day = days.day_of(event)
        if not self._period.first <= day <= self._period.last:
            return None
        place = self._places.setdefault((event.workspace_id, day), len(self._places))
        taken = record.offset < self._taken_to[record.partition]
        tokens, correction = event.tokens, event.kind is Kind.CORRECTION
        return event.idempotency_key, place, correction, tokens.input_tokens, tokens.output_tokens, counted, taken

    def _note(self, record: TopicRecord, reason: str) -> None:
        self.unreadable += 1
        if len(self.named) < NAMED:
            self.named.append(UnreadableRecord(record.partition, record.offset, reason))
