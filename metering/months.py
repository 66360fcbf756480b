"""Which months are told beside their days, and what is told of them (counting 5).

A month is told where a limit is compared with it: its sum costs a look at all its days.
"""

from collections.abc import Collection, Sequence
from datetime import date
from typing import Protocol

from domain import days
from domain.limit_tree import Threshold
from domain.sources import EventBatch
from metering.core import decisions, sums
from metering.core.alerts import PeriodSum
from metering.core.decisions import Part
from metering.core.sums import Counter, LimitTotal, Totals
from schemas.limits import UsageLimitUnit


class MonthLedger(Protocol):
    """Sums the days of a month, each named by its first day."""

    async def months(
        self, topic: str, partition: int, lane: str, names: Collection[Counter]
    ) -> tuple[Totals, Sequence[LimitTotal]]:
        """Return what a lane has of these months, with its position; and what others have."""

    async def named_in_month(self, lane: str, month: date, after: tuple[str, str]) -> Sequence[tuple[str, str]]:
        """Return (group, slug) that a lane counts in a month, in order, behind `after`; none when there are no more."""


class MonthThresholds(Protocol):
    """Knows the limits on months that groups set."""

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        """Return the thresholds that are compared with this counter."""

    @property
    def month_changes(self) -> int:
        """Return how often a limit on months has come or changed."""

    def is_monthly(self, group_id: str, model_slug: str) -> bool:
        """Whether the month's sum of this counter is to be told."""

    def months_changed(self, since: int, group_id: str) -> bool:
        """Whether such a change, after the first `since` ones, may concern a group."""


def of(thresholds: MonthThresholds, counters: Collection[Counter]) -> set[Counter]:
    """Return the months of these days that are to be told."""
    return {
        counter._replace(day=days.month_of(counter.day))
        for counter in counters
        if thresholds.is_monthly(counter.group_id, counter.model_slug)
    }


async def parts(
    ledger: MonthLedger, thresholds: MonthThresholds, batch: EventBatch, names: Collection[Counter]
) -> tuple[list[Part], list[PeriodSum]]:
    """Return what the batch's lane has of these months, and what all lanes have of them together."""
    if not names:
        return [], []
    own, others = await ledger.months(batch.topic, batch.partition, batch.lane, names)
    return told(batch.partition, own, others, thresholds)


def told(
    partition: int, own: Totals, others: Sequence[LimitTotal], thresholds: MonthThresholds
) -> tuple[list[Part], list[PeriodSum]]:
    """Return what is told of the months that a lane counts, and what all lanes have of them, which thresholds judge."""
    whole = sums.whole_limits([*own.limits, *others])
    unit = UsageLimitUnit.MONTH

    def part(total: LimitTotal) -> Part:
        found = thresholds.of(total.counter.group_id, total.counter.model_slug)
        used_up = decisions.used_up(whole[total.counter], found, unit)
        return Part(own.lane, partition, own.position, total, used_up, unit)

    return [part(total) for total in own.limits], [PeriodSum(total, unit) for total in whole.values()]


async def to_tell(  # noqa: PLR0917 - which months
    ledger: MonthLedger, thresholds: MonthThresholds, lane: str, month: date, since: int | None, after: tuple[str, str]
) -> tuple[Sequence[tuple[str, str]], tuple[Counter, ...]]:
    """Return some (group, slug) behind `after` that a lane counts, and the months of those that are to be told again.

    `since` is after how many changes of limits; None: all are.
    """
    named = await ledger.named_in_month(lane, month, after)
    wanted = [
        Counter(month, *name)
        for name in named
        if (since is None or thresholds.months_changed(since, name[0])) and thresholds.is_monthly(*name)
    ]
    return named, tuple(wanted)
