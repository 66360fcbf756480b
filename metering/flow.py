"""Metering's story: apply a batch, decide on what it names, tell it; only then is the batch acknowledged (contract 4).

Never tells a total that is not committed. The ledger's one transaction counts (counting 4, 5).
"""

from collections import Counter as Tally
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import NamedTuple

from domain.positions import PositionLostError
from domain.sources import EventBatch
from metering import alerts, months
from metering.alerts import UsageAlerts
from metering.core import decisions, sums, telling
from metering.core.alerts import PeriodSum
from metering.core.decisions import Part
from metering.core.sums import Counter, LimitTotal, Totals
from metering.core.telling import LaneTelling, ToldCounter
from metering.ports import Ledger, Thresholds, TotalsSink
from runtime.clock import Clock
from schemas.daily import DailyUsage
from schemas.decisions import UsedUp
from schemas.limits import UsageLimitUnit

SEND_WITHIN = timedelta(seconds=5)
"""A writer that needs longer from its transaction to its send looks whether it still owns the partition."""

MOST_LOOKS = 5
"""How often daily usage that several lanes change is looked at again after it was told."""


@dataclass(frozen=True, slots=True)
class CountedBatch:
    """What is to be told of one partition: the parts that a transaction of the ledger gave."""

    batch: EventBatch
    totals: Totals
    began_at: datetime
    """Before the transaction: a pause right after its commit must not go unseen."""


class _Told(NamedTuple):
    """What is told of a lane."""

    parts: list[Part]
    daily: list[DailyUsage]
    shared: set[Counter]
    """Of which daily usage other lanes have a part."""
    sums: list[PeriodSum]
    """Over all lanes, of every counter that has a threshold; what alerts are judged by."""
    standings: list[ToldCounter]


class Metering:
    """Turns batches of usage events into counts and decisions."""

    def __init__(self, ledger: Ledger, sink: TotalsSink, thresholds: Thresholds, clock: Clock) -> None:
        self._ledger = ledger
        self._sink = sink
        self._thresholds = thresholds
        self._clock = clock
        self._alerts = UsageAlerts(ledger, thresholds)

    @property
    def limit_changes(self) -> int:
        """Return how often any group has changed: `changed` tells of what waits."""
        return self._thresholds.changes

    @property
    def month_changes(self) -> int:
        """Return how often a limit on months has come or changed: `months` tells of them."""
        return self._thresholds.month_changes

    async def process(self, batch: EventBatch) -> None:
        """Count `batch` and tell what it names. On return it may be acknowledged, on an error it may not.

        A batch that comes again changes no sum, and its totals are told again: so a crash between commit and send
        heals. Raise BeyondPositionError, PositionLostError, and whatever the ledger or the sink raise.
        """
        await self.publish([await self.count(batch)])

    async def count(self, batch: EventBatch) -> CountedBatch:
        """Count `batch`; what it names is still to be told. Raises as the ledger does."""
        began_at = self._clock()
        return CountedBatch(batch, await self._ledger.apply(batch), began_at)

    async def untold(  # noqa: PLR0917 - which rows
        self, topic: str, partition: int, lane: str, told: int, from_day: date, after: Counter | None
    ) -> CountedBatch:
        """Find what of a lane is not known to be told, as the ledger's `untold` does."""
        began_at = self._clock()
        totals = await self._ledger.untold(topic, partition, lane, told, from_day, after)
        return CountedBatch(_nothing_read(topic, partition, totals), totals, began_at)

    async def parts(self, topic: str, partition: int, lane: str, counters: Collection[Counter]) -> CountedBatch:
        """Find what a lane has of counters by now, to tell it again."""
        began_at = self._clock()
        totals = await self._ledger.parts(topic, partition, lane, counters)
        totals = replace(totals, months=tuple(sorted(months.of(self._thresholds, counters))))
        return CountedBatch(_nothing_read(topic, partition, totals), totals, began_at)

    async def months(  # noqa: PLR0917 - which months
        self, topic: str, partition: int, lane: str, month: date, since: int | None, after: tuple[str, str]
    ) -> tuple[CountedBatch, tuple[str, str] | None]:
        """Find a lane's months to be told again: all (`since` is None), or where a limit changed since.

        Some at a time, behind `after`; with where the next begins, None when there are no more.
        """
        began_at = self._clock()
        named, wanted = await months.to_tell(self._ledger, self._thresholds, lane, month, since, after)
        totals = Totals(lane, (), (), await self._ledger.position(topic, partition) or 0, wanted)
        return CountedBatch(_nothing_read(topic, partition, totals), totals, began_at), named[-1] if named else None

    async def publish(self, counted: Sequence[CountedBatch]) -> Sequence[ToldCounter]:
        """Tell the newest of every counter that `counted` names, each once a lane; return how each stands then.

        It may be called again.

        What took longer than SEND_WITHIN is looked at again first: where another worker has moved the position since,
        its totals are left out, and PositionLostError is raised after the others were told.
        """
        owned, lost = await self._owned(counted)
        by_lane: dict[str, list[CountedBatch]] = {}
        for one in owned:
            by_lane.setdefault(one.totals.lane, []).append(one)
        parts: list[Part] = []
        daily: list[DailyUsage] = []
        shared: set[Counter] = set()
        standings: list[ToldCounter] = []
        for lane, some in by_lane.items():
            told = await self._decide(lane, some)
            await self._alerts.judge(told.sums)
            parts += told.parts
            daily += told.daily
            shared |= told.shared
            standings += told.standings
        if parts or daily:
            await self._sink.publish(parts, _newest(daily))
        await self._look_again(shared, {sums.counter_of(usage): usage.version for usage in _newest(daily)})
        if lost is not None:
            raise PositionLostError(lost)
        return standings

    def named(self, telling: LaneTelling, counted: CountedBatch) -> CountedBatch:
        """Note in a lane's `telling` what `counted` names; return what of it is to be told at once."""
        return replace(counted, totals=telling.named(counted.totals, self._thresholds.of, self._clock()))

    def changed(self, telling: LaneTelling) -> list[Counter]:
        """Return what of a lane waits although its limits have changed since it was told."""
        return telling.changed(self._thresholds.of)

    async def publish_daily(self, own: Mapping[Counter, int]) -> None:
        """Tell daily usage over all lanes, at most PAGE of it, each with the version of this worker's own part."""
        began_at = self._clock()
        found = await self._ledger.daily(own.keys())
        await self._sink.publish((), list(found.values()))
        told = {counter: usage.version for counter, usage in found.items()}
        is_late = self._clock() - began_at > SEND_WITHIN  # another may have told newer figures meanwhile
        await self._look_again({counter for counter, at in told.items() if is_late or at != own[counter]}, told)

    async def judge(self, totals: Collection[LimitTotal]) -> None:
        """Keep the alerts that sums of days over all lanes make due."""
        found = await alerts.over_slugs(self._ledger, self._thresholds, (total.counter for total in totals))
        await self._alerts.judge([*(PeriodSum(total, UsageLimitUnit.DAY) for total in totals), *found])

    async def _decide(self, lane: str, counted: Sequence[CountedBatch]) -> "_Told":
        """Return what is to be told of a lane: its newest parts, and the daily usage that they change."""
        newest = {
            total.counter: (one, total) for one in counted for total in one.totals.limits
        }  # several batches of one lane come in order
        daily = {sums.counter_of(usage): usage for one in counted for usage in one.totals.daily}
        limits = {counter: telling.limits(counter, self._thresholds.of) for counter in newest}
        judged = {counter for counter, listed in limits.items() if listed}
        others_daily, others = await self._ledger.elsewhere(lane, daily.keys(), judged)
        whole = sums.whole_limits([*(total for _, total in newest.values()), *others])
        parts = [
            Part(lane, one.batch.partition, one.totals.position, total, self._used_up(whole[counter]))
            for counter, (one, total) in newest.items()
        ]
        named = months.of(self._thresholds, newest) | {name for one in counted for name in one.totals.months}
        of_months, month_sums = await months.parts(self._ledger, self._thresholds, counted[-1].batch, named)
        day_sums = [PeriodSum(total, UsageLimitUnit.DAY) for total in whole.values()]
        found = [*day_sums, *month_sums, *await alerts.over_slugs(self._ledger, self._thresholds, judged)]
        lanes = Tally(total.counter for total in others)
        left = telling.left_of(self._thresholds.of, found)
        standings = [
            ToldCounter(lane, total, 1 + lanes[counter], limits[counter], left(counter))
            for counter, (_, total) in newest.items()
        ]
        usages = sums.whole_daily([*daily.values(), *others_daily])
        shared = {sums.counter_of(usage) for usage in others_daily}
        return _Told([*parts, *of_months], list(usages.values()), shared, found, standings)

    def _used_up(self, whole: LimitTotal) -> tuple[UsedUp, ...]:
        return decisions.used_up(whole, self._thresholds.of(whole.counter.group_id, whole.counter.model_slug))

    async def _look_again(self, shared: Collection[Counter], told: dict[Counter, int]) -> None:
        """Tell again what another lane has changed meanwhile: each may have missed the other's addition."""
        for _ in range(MOST_LOOKS):
            if not shared:
                return
            now = await self._ledger.daily(shared)
            moved = [usage for counter, usage in now.items() if usage.version != told.get(counter)]
            if not moved:
                return
            await self._sink.publish((), moved)
            told |= {sums.counter_of(usage): usage.version for usage in moved}

    async def _owned(self, counted: Sequence[CountedBatch]) -> tuple[list[CountedBatch], EventBatch | None]:
        """Return what may be told, and one batch of those whose partition another worker has moved."""
        ends = {
            one.batch.source: one.totals.position for one in counted
        }  # several batches of one partition come in order
        owned: list[CountedBatch] = []
        lost: EventBatch | None = None
        for one in counted:
            is_late = self._clock() - one.began_at > SEND_WITHIN
            if is_late and await self._ledger.position(*one.batch.source) != ends[one.batch.source]:
                lost = one.batch
            else:
                owned.append(one)
        return owned, lost


def _nothing_read(topic: str, partition: int, totals: Totals) -> EventBatch:
    return EventBatch(topic, partition, totals.lane, totals.position, totals.position, ())


def _newest(daily: Sequence[DailyUsage]) -> list[DailyUsage]:
    newest: dict[Counter, DailyUsage] = {}
    for usage in daily:
        counter = sums.counter_of(usage)
        known = newest.get(counter)
        if known is None or usage.version >= known.version:
            newest[counter] = usage
    return list(newest.values())
