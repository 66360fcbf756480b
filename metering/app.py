"""Metering as a part of the embedded process: follows the spools, and hands decisions over in memory.

Never lets a failure go unseen: what does not pass by itself ends the task that follows the partition.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import date

from domain import days, sources
from domain.ledger_days import DayClosedError
from domain.sources import EventBatch, PartitionId
from metering import flow, ports, traced
from metering.core import sums
from metering.core.decisions import Part
from metering.store import day_partitions, transaction
from runtime import loops
from runtime.clock import Clock, Steady
from runtime.database.engines import Database
from runtime.outage import Outage, Pause
from runtime.telemetry.traces import Traces
from schemas.daily import DailyUsage

BATCH = 1000
MIN_INTERVAL_S = 0.02
_WAIT_S = 1.0
_MOST_REST_S = 1.0
_NAMED = 20  # keys in one line of the log

_log = logging.getLogger(__name__)


class Handover:
    """Implements metering's `TotalsSink` by calling its readers: once that returns, they have it."""

    def __init__(
        self,
        on_parts: Callable[[Sequence[Part]], None],
        on_daily: Callable[[Sequence[DailyUsage]], None] | None = None,
    ) -> None:
        self._on_parts = on_parts
        self._on_daily = on_daily

    async def publish(self, parts: Sequence[Part], daily: Sequence[DailyUsage]) -> None:
        """Hand over; what a reader raises is the caller's."""
        self._on_parts(parts)
        if self._on_daily is not None:
            self._on_daily(daily)


OnWhole = Callable[[str, int], None]
"""Hears of a lane that every change below an offset of it was handed over."""


class EmbeddedMetering:
    """Metering over one database. `follow` runs once for each partition, as a task of its own."""

    def __init__(
        self,
        database: Database,
        thresholds: ports.Thresholds,
        sink: ports.TotalsSink,
        clock: Clock,
        *,
        on_whole: OnWhole | None = None,
        min_interval_s: float = MIN_INTERVAL_S,
        pause: Pause = asyncio.sleep,
        steady: Steady = time.monotonic,
        traces: Traces | None = None,
    ) -> None:
        """At least `min_interval_s` lies behind a batch that was not full (`loops.rest_s`)."""
        self._database = database
        self._ledger = traced.ledger(database, lambda _: clock(), traces)
        self._metering = flow.Metering(self._ledger, sink, thresholds, clock)
        self._on_whole = on_whole or _nobody_hears
        self._min_interval_s = min_interval_s
        self._pause = pause
        self._clock = clock
        self._steady = steady
        self._committed: dict[PartitionId, int] = {}
        self._thresholds = thresholds
        self._lanes: dict[PartitionId, str] = {}
        self._month_changes = 0
        """How many changes of limits on months were told after."""
        self.counted = 0
        """Usage events counted since the start, repeats among them."""
        self.left_out = 0
        """Usage events since the start that came too late to be counted: the ledger's days of them are closed."""

    def committed(self, topic: str, partition: int) -> int:
        """Return the next offset to count: what lies below is counted and handed over. 0 until `follow` has read it."""
        return self._committed.get((topic, partition), 0)

    async def hand_over(self, of_days: Collection[date], on_parts: Callable[[Sequence[Part]], None]) -> None:
        """Hand over every part of `of_days` and of their months, then `whole`: the proxy needs it before it starts.

        Alerts are judged anew: the last process may have ended between its last commit and those.
        """
        lanes, positions = await self._database.read(lambda connection: transaction.current(connection, of_days))
        await self._metering.judge(sums.whole_limits(total for totals in lanes for total in totals.limits).values())
        for totals in lanes:
            on_parts([Part(totals.lane, 0, totals.position, total) for total in totals.limits])
        for lane in positions:
            for month in {days.month_of(day) for day in of_days}:
                await self._tell_months(lane, 0, lane, None, month)
        for lane, at in positions.items():
            self._on_whole(lane, at)

    async def tell_months(self) -> None:
        """Hand over the months on which a limit came or changed, before its change is answered."""
        since, changes = self._month_changes, self._thresholds.month_changes
        if since == changes:
            return
        for (topic, partition), lane in list(self._lanes.items()):
            await self._tell_months(topic, partition, lane, since, days.month_of(self._clock().date()))
        self._month_changes = max(changes, self._month_changes)

    async def _tell_months(self, topic: str, partition: int, lane: str, since: int | None, month: date) -> None:
        after = ("", "")
        while True:
            found, behind = await self._metering.months(topic, partition, lane, month, since, after)
            if found.totals.months:
                await self._metering.publish([found])
            if behind is None:
                return
            after = behind

    async def follow(self, partition: sources.EventSource) -> None:
        """Count everything that comes on `partition`, forever. Ends only by an error that does not pass by itself."""
        place = (partition.topic, partition.index)
        outage = Outage(f"metering of {partition.topic}", _log, self._pause)
        await outage.ride_out(self._ledger.note_clock_set_back)  # it may have been since the last run
        known = await outage.ride_out(lambda: self._ledger.position(*place))
        offset = partition.first_offset if known is None else known
        self._lanes[place] = partition.lane
        while True:
            self._committed[place] = offset
            self._on_whole(partition.lane, offset)
            offset = await self._step(partition, offset, outage)

    async def _step(self, partition: sources.EventSource, offset: int, outage: Outage) -> int:
        """Count one batch, or wait for one; return the next offset."""
        batch = await partition.read(offset, BATCH)
        loops.turned(len(batch.events), rest_s=_WAIT_S, waits_for="usage events")
        if batch.next_offset <= offset:
            await partition.wait(offset, _WAIT_S)
            return offset
        began_s = self._steady()
        await outage.ride_out(lambda: self._count(batch))
        self.counted += len(batch.events)
        self._committed[partition.topic, partition.index] = batch.next_offset
        if len(batch.events) < BATCH:
            await self._pause(loops.rest_s(self._steady() - began_s, self._min_interval_s, _MOST_REST_S))
        return batch.next_offset

    async def _count(self, batch: EventBatch) -> None:
        try:
            await self._metering.process(batch)
        except DayClosedError as error:
            open_ = await self._database.read(day_partitions.open_days)
            late = [event for event in batch.events if not open_.holds(days.day_of(event))]
            keys = ", ".join(event.idempotency_key for event in late[:_NAMED])
            _log.error("%d events of %s are not counted: %s (%s)", len(late), batch.topic, error, keys)
            events = tuple(event for event in batch.events if open_.holds(days.day_of(event)))
            await self._metering.process(replace(batch, events=events))
            self.left_out += len(late)


def _nobody_hears(_lane: str, _at: int) -> None:
    """Stand for a reader that there is not."""
