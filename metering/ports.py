"""The ports of metering's story: what it asks of the ledger, of who sets limits, and of the readers of totals."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Protocol

from domain.limit_tree import Threshold
from domain.positions import Progress
from domain.sources import EventBatch
from metering import alerts, months
from metering.core.decisions import Part
from metering.core.sums import Counter, LimitTotal, Totals
from schemas.daily import DailyUsage


class Ledger(months.MonthLedger, alerts.AlertLedger, Protocol):
    """Counts each usage event once."""

    async def apply(self, batch: EventBatch) -> Totals:
        """Count what is new in one transaction; return the lane's parts of everything the batch names, new or not.

        Raise BeyondPositionError, PositionLostError; both leave everything as it was.
        """

    async def position(self, topic: str, partition: int) -> int | None:
        """Return the committed next offset; None where nothing of the partition was counted yet."""

    async def first_version(self) -> int:
        """Return the lowest version of the database's epoch (counting 9)."""

    async def progress(self, topic: str, partition: int) -> Progress | None:
        """Return how far the partition is counted and told; None where nothing of it was counted yet."""

    async def untold(  # noqa: PLR0917 - which rows
        self, topic: str, partition: int, lane: str, told: int, from_day: date, after: Counter | None
    ) -> Totals:
        """Return parts of a lane that changed above its offset `told`, from `from_day` on, behind `after`.

        In the order of counters, some at a time, none when there are no more.
        """

    async def parts(self, topic: str, partition: int, lane: str, counters: Collection[Counter]) -> Totals:
        """Return what a lane has of these counters, and its position."""

    async def elsewhere(
        self, lane: str, daily: Collection[Counter], limits: Collection[Counter]
    ) -> tuple[Sequence[DailyUsage], Sequence[LimitTotal]]:
        """Return what other lanes have of these counters."""

    async def daily(self, counters: Collection[Counter]) -> Mapping[Counter, DailyUsage]:
        """Return the daily usage of these counters, over all lanes."""

    async def spreads(self) -> Mapping[str, int]:
        """Return over how many lanes each tree lies that ever lay in more than one, by its last charged group."""

    async def note_spread(self, tree: str, lanes: int, now: datetime) -> None:
        """Note over how many lanes a tree lies from now on."""

    async def note_told(self, topic: str, partition: int, at: int, end: int | None, now: datetime) -> bool:
        """Note that every change below `at` was told; False, and nothing, where the position is no longer `at`."""


class TotalsSink(Protocol):
    """Hands totals to their readers."""

    async def publish(self, parts: Sequence[Part], daily: Sequence[DailyUsage]) -> None:
        """Return when the readers' side has them for good."""


class Thresholds(months.MonthThresholds, alerts.AlertThresholds, Protocol):
    """Knows the limits that groups set."""

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        """Return the thresholds that are compared with this counter; empty for a group that is not known."""

    @property
    def changes(self) -> int:
        """Return how often any group has changed: its counters' limits may be others."""
