"""A worker's lanes: taking one over, telling `whole`, and mending what another has written late (counting 5).

Never tells `whole` before every change below it was told. The counting is held up for no more than a page.

A batch's counters are told right after its commit, or they wait (`metering.core.telling`). A worker may die in between,
or find itself late and leave its totals to whoever has moved the position since. So the position's row says up to which
offset all was told, and who takes the lane over tells first what has changed above it. Compaction keeps the record that
was written last, and a worker that was paused may write an old one late: the broker's offsets show that, and its
counters are told again.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice

from domain import positions
from domain.days import month_of
from domain.positions import Progress
from metering import flow, ports
from metering.core import sums, telling
from metering.core.spreads import BusyTrees
from metering.core.sums import Counter
from metering.core.telling import LaneTelling, ToldCounter
from metering.flow import CountedBatch
from metering.store.transaction import PAGE
from metering.topic import publisher
from metering.topic.publisher import KafkaTotals
from runtime.clock import Clock
from runtime.kafka import writer
from runtime.kafka.reader import LogReader
from runtime.outage import Outage
from schemas.topics import USAGE_EVENTS

WHOLE_WITHIN = timedelta(seconds=30)
"""A lane's `whole` is told so often at least, moved or not: its readers see that somebody owns it."""

MONTHS_WITHIN = timedelta(hours=24)
"""All months are told again so often: the topic forgets what is older than 48 h."""

WHOLE_SOON = timedelta(seconds=5)
"""And so often where the lane has moved: what proxies keep of it may go."""

SPREADS_WITHIN = timedelta(hours=12)
"""All of a lane's spreads are told again so often, for the same reason."""

log = logging.getLogger(__name__)

Publish = Callable[[Sequence[CountedBatch]], Awaitable[bool]]
"""Says whether Kafka has all of it; what another worker is to tell is left out."""


def lane_of(partition: int) -> str:
    """Name the lane of a partition."""
    return f"{USAGE_EVENTS}/{partition}"


def partition_of(lane: str) -> int | None:
    """Return the partition of a lane; None for one that is none of Kafka's."""
    topic, _, partition = lane.rpartition("/")
    return int(partition) if topic == USAGE_EVENTS and partition.isdecimal() else None


@dataclass(slots=True)
class _Lane:
    """One that this worker has taken over; all changes below `counted` are told, or wait in `telling`."""

    counted: int
    trees: BusyTrees
    telling: LaneTelling = field(default_factory=LaneTelling)
    limit_changes: int = 0
    """After how many changes of groups it was looked whether what waits has other limits now."""
    whole: int | None = None
    whole_at: datetime | None = None
    months_at: datetime | None = None
    """When all its months were told last."""
    spreads_at: datetime | None = None
    """When it was told last over how many lanes its trees lie."""
    month_changes: int = 0
    """How many changes of limits on months they were told after."""


class Lanes:
    """Those of one worker. Its caller holds the turn: nobody counts or tells meanwhile."""

    def __init__(
        self,
        metering: flow.Metering,
        ledger: ports.Ledger,
        totals: KafkaTotals,
        publish: Publish,
        *,
        decisions: LogReader,
        clock: Clock,
        database_outage: Outage,
        kafka_outage: Outage,
    ) -> None:
        self._metering = metering
        self._ledger = ledger
        self._totals = totals
        self._publish = publish
        self._decisions = decisions
        self._clock = clock
        self._database = database_outage
        self._kafka = kafka_outage
        self._lanes: dict[int | None, _Lane] = {}
        self.mended = 0
        """How many counters were told again because another had written late."""

    def leave(self, partition: int) -> None:
        """Forget a lane that was assigned anew, or lost: it is taken over again before anything is counted."""
        self._lanes.pop(partition, None)

    def named(self, counted: Sequence[CountedBatch]) -> list[CountedBatch]:
        """Return what of it is to be told at once; the rest waits."""
        found = []
        for one in counted:
            lane = self._lanes.get(one.batch.partition)
            if lane is not None:
                lane.trees.count(one.batch.events)
            due = one if lane is None else self._metering.named(lane.telling, one)
            if due.totals.limits or due.totals.daily:
                found.append(due)
        return found

    def told(self, standings: Sequence[ToldCounter]) -> None:
        """Take note of what was told."""
        now = self._clock()
        for standing in standings:
            partition = partition_of(standing.lane)
            if partition in self._lanes:
                self._lanes[partition].telling.told(standing, now)

    def moved(self, partition: int, position: int) -> None:
        """Take note that all changes below `position` are told, or wait."""
        if partition in self._lanes:
            self._lanes[partition].counted = position

    async def take_over(self, partition: int) -> bool:
        """Tell what whoever had the lane before has not told; False where another has it by now."""
        if partition in self._lanes:
            return True
        progress = await self._database.ride_out(lambda: self._ledger.progress(USAGE_EVENTS, partition))
        self._totals.first_version = await self._database.ride_out(self._ledger.first_version)
        self._totals.begin(partition, progress.told_end if progress else None)
        is_behind = progress is not None and progress.told_offset != progress.next_offset
        if progress is not None and is_behind and not await self._tell_untold(partition, progress):
            return False
        self._lanes[partition] = _Lane(progress.next_offset if progress else 0, await self._trees(partition))
        return await self.tell_whole(partition)

    async def look(self, partition: int) -> None:
        """Tell `whole` where it is time. To be called every second or so."""
        lane = self._lanes.get(partition)
        if lane is None or lane.whole_at is None:
            await self.take_over(partition)
            return
        age, waiting = self._clock() - lane.whole_at, lane.telling.waiting
        is_soon = age >= WHOLE_SOON and lane.counted != lane.whole and not waiting
        if is_soon or age >= WHOLE_WITHIN or len(waiting) > telling.MOST:
            await self.tell_whole(partition)
        else:
            await self._tell_changed(partition, lane)
        await self._tell_months(partition, lane)
        await self._tell_spreads(partition, lane)

    async def tell_daily(self, partitions: Sequence[int]) -> None:
        """Tell the daily usage of lanes that has changed since it was told. To be called every second or so."""
        changed: dict[Counter, int] = {}
        for partition in partitions:
            if partition in self._lanes:
                changed |= self._lanes[partition].telling.daily
                self._lanes[partition].telling.daily = {}
        named = sorted(changed)
        for start in range(0, len(named), PAGE):
            some = {counter: changed[counter] for counter in named[start : start + PAGE]}
            tell = partial(self._metering.publish_daily, some)
            await self._kafka.ride_out(partial(self._database.ride_out, tell))

    async def tell_whole(self, partition: int) -> bool:
        """Tell what waits, mend what another wrote, tell `whole`, note it; False where another has the lane by now."""
        lane = self._lanes.get(partition)
        if lane is None or not await self._tell_waiting(partition, lane, lane.telling.waiting):
            return False
        await self.tell_daily([partition])
        at = lane.counted
        if not await self._mend(partition):
            return False
        position = await self._database.ride_out(lambda: self._ledger.position(USAGE_EVENTS, partition))
        if (position or 0) != at:  # another worker's: it has counted what is not told here
            self.leave(partition)
            return False
        await self._kafka.ride_out(lambda: self._totals.publish_whole(partition, at))
        lane.whole, lane.whole_at = at, self._clock()
        if position is not None:
            end, now = self._totals.end_of(partition), lane.whole_at
            await self._database.ride_out(lambda: self._ledger.note_told(USAGE_EVENTS, partition, at, end, now))
        return True

    async def _trees(self, partition: int) -> BusyTrees:
        """Return the trees whose own lane this is."""
        lanes = await self._kafka.ride_out(self._totals.lanes)
        known = await self._database.ride_out(self._ledger.spreads)
        own = {tree: over for tree, over in known.items() if writer.partition_of(tree.encode(), lanes) == partition}
        return BusyTrees(own, lanes, lambda tree: writer.partition_of(tree.encode(), lanes) == partition, self._clock())

    async def _tell_spreads(self, partition: int, lane: _Lane) -> None:
        """Judge how busy the lane's trees are, and tell over how many lanes they lie from now on; all now and then."""
        now = self._clock()
        changed = lane.trees.judge(now)
        for tree, lanes in changed.items():
            await self._database.ride_out(partial(self._ledger.note_spread, tree, lanes, now))
            log.info("the events of group %s are to lie over %d lanes", tree, lanes)
        if lane.spreads_at is None or now - lane.spreads_at >= SPREADS_WITHIN:
            lane.spreads_at, changed = now, dict(lane.trees.lanes)
        for tree, lanes in changed.items():
            await self._kafka.ride_out(partial(self._totals.publish_spread, partition, tree, lanes))

    async def _tell_changed(self, partition: int, lane: _Lane) -> None:
        """Tell at once what waits although its limits have changed."""
        changes = self._metering.limit_changes
        if lane.limit_changes != changes:
            lane.limit_changes = changes
            await self._tell_waiting(partition, lane, dict.fromkeys(self._metering.changed(lane.telling)))

    async def _tell_waiting(self, partition: int, lane: _Lane, counters: dict[Counter, None]) -> bool:
        """Tell these, which wait, until none of them is left; False where another has the lane by now."""
        while counters:
            some = sorted(islice(counters, PAGE))
            read = partial(self._metering.parts, USAGE_EVENTS, partition, lane_of(partition), some)
            found = await self._database.ride_out(read)
            only_limits = replace(found, totals=replace(found.totals, daily=()))
            if found.totals.position != lane.counted or not await self._publish([only_limits]):
                self.leave(partition)
                return False
            for counter in some:
                counters.pop(counter, None)
                lane.telling.waiting.pop(counter, None)
        return True

    async def _tell_months(self, partition: int, lane: _Lane) -> None:
        """Tell the months of a lane where it is time, or where a limit on months came or changed."""
        now, changes = self._clock(), self._metering.month_changes
        since = None if lane.months_at is None or now - lane.months_at >= MONTHS_WITHIN else lane.month_changes
        if since == changes:
            return
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            read = partial(
                self._metering.months, USAGE_EVENTS, partition, lane_of(partition), month_of(now.date()), since, after
            )
            found, after = await self._database.ride_out(read)
            if found.totals.months and not await self._publish([found]):
                return
        if since is None:
            lane.months_at = now
        lane.month_changes = changes

    async def _tell_untold(self, partition: int, progress: Progress) -> bool:
        told = -1 if progress.told_offset is None else progress.told_offset
        from_day = positions.untold_from(progress)
        after: Counter | None = None
        while True:
            read = partial(self._metering.untold, USAGE_EVENTS, partition, lane_of(partition), told, from_day, after)
            found = await self._database.ride_out(read)
            names = _names(found)
            if not names:
                return found.totals.position == progress.next_offset
            if found.totals.position != progress.next_offset or not await self._publish([found]):
                return False
            after = max(names)

    async def _mend(self, partition: int) -> bool:
        """Tell again what another has written over; False where another has the lane."""
        while (gap := self._totals.gap(partition)) is not None:
            counters = await self._kafka.ride_out(
                lambda gap=gap: publisher.told_counters(self._decisions, partition, gap)  # type: ignore[misc]
            )
            named = sorted(counters)
            for start in range(0, len(named), PAGE):
                some = named[start : start + PAGE]
                read = partial(self._metering.parts, USAGE_EVENTS, partition, lane_of(partition), some)
                if not await self._publish([await self._database.ride_out(read)]):
                    return False
                self.mended += len(some)
        return True


def _names(found: CountedBatch) -> set[Counter]:
    totals = found.totals
    return {total.counter for total in totals.limits} | {sums.counter_of(usage) for usage in totals.daily}
