"""Tells of usage alerts: each the first time that a group's day or month reaches a share of a limit (contract 2.5).

It judges after the counting transaction: in it, two lanes that commit at once would each miss the other's addition.
Judged are sums that were read after the commit, so of the two at least the later one sees both.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import date
from typing import Protocol

from domain import days
from domain.limit_tree import Threshold
from metering.core import alerts
from metering.core.alerts import Alert, AlertedGroup, PeriodSum
from metering.core.sums import Counter, LimitIncrement, LimitTotal
from schemas.limits import ANY_SLUG, UsageLimitUnit

_MOST_KNOWN = 100_000


class AlertLedger(Protocol):
    """Keeps alerts, each once, and sums what they are judged by."""

    async def keep_alerts(self, found: Sequence[Alert]) -> None:
        """Keep those that are new, in one transaction; those that are there stay as they are."""

    async def over_slugs(self, group_ids: Collection[str], first: date, last: date) -> Mapping[str, LimitIncrement]:
        """Return what counts against limits of groups over all slugs and lanes, on days from `first` to `last`."""


class AlertThresholds(Protocol):
    """Knows limits, and who asked for alerts."""

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        """Return the thresholds that are compared with this counter; with `*`, with the group's sum over all slugs."""

    def alerted(self, group_id: str) -> AlertedGroup | None:
        """Return whom an alert of this group is for; None where nobody asked for any."""


class UsageAlerts:
    """Judges sums. For one event loop."""

    def __init__(self, ledger: AlertLedger, thresholds: AlertThresholds) -> None:
        self._ledger = ledger
        self._thresholds = thresholds
        self._kept: set[str] = set()
        """Ids that were kept, so that what stays above a share costs no transaction each time."""

    async def judge(self, sums: Iterable[PeriodSum]) -> None:
        """Keep each alert that these sums make due. Raises what the ledger does; then it may be called again."""
        due = [
            alert
            for found in sums
            if (group := self._thresholds.alerted(found.total.counter.group_id)) is not None
            for alert in self._new(group, found)
        ]
        if not due:
            return
        await self._ledger.keep_alerts(due)
        if len(self._kept) > _MOST_KNOWN:
            self._kept.clear()
        self._kept |= {alert.id for alert in due}

    def _new(self, group: AlertedGroup, found: PeriodSum) -> list[Alert]:
        counter = found.total.counter
        reached = alerts.reached(group, found, self._thresholds.of(counter.group_id, counter.model_slug))
        return [alert for alert in reached if alert.id not in self._kept]


async def over_slugs(
    ledger: AlertLedger, thresholds: AlertThresholds, counters: Iterable[Counter]
) -> Sequence[PeriodSum]:
    """Return the sums over all slugs that these counters of days belong to, where a limit is compared with them."""
    periods: defaultdict[tuple[date, UsageLimitUnit], set[str]] = defaultdict(set)
    for day, group_id, _ in counters:
        for limit in thresholds.of(group_id, ANY_SLUG):
            periods[days.first_and_last(day, limit.unit)[0], limit.unit].add(group_id)
    found = []
    for (first, unit), groups in periods.items():
        figures = await ledger.over_slugs(groups, *days.first_and_last(first, unit))
        for group_id, used in figures.items():
            total = LimitTotal(Counter(first, group_id, ANY_SLUG), used.requests, used.tokens, 0, *used[2:])
            found.append(PeriodSum(total, unit))
    return found
