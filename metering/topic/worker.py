"""Metering over Kafka: one worker of a consumer group, which Faust shares the partitions out to (counting 4, 5).

Never trusts the group's offsets: the ledger's position says what is counted. And never hides a failure: what does not
pass by itself ends `run`, and with it the process, whose supervisor begins anew at the position.

What may happen to a batch, and what follows:

- It begins beyond the position: something was lost on the way here. Nothing is applied; the position is written to the
  group, and the worker ends.
- Another worker has moved the position: it owns the partition, or did a moment ago. The batch is dropped and nothing of
  it published; the worker goes on, because that happens in every rebalance, and ending would only cause the next one.
  If the partition is still ours, the next batch meets the position again: at it, below it, or beyond it.
- The database or Kafka is away: it is tried again for as long as that takes, with pauses of 5 s at most. Faust's thread
  keeps the worker in its group meanwhile. If a rebalance takes a partition away, its new owner counts the batch first,
  or finds it counted: only one of the two moves the position.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from aiokafka.errors import KafkaError
from sqlalchemy.exc import SQLAlchemyError

from domain import positions
from domain.positions import BeyondPositionError, PositionLostError, Start
from metering import flow, ports, traced
from metering.flow import CountedBatch
from metering.topic import metrics
from metering.topic.batches import Counting, joined
from metering.topic.faust_consumer import Fetch, Fetches
from metering.topic.lanes import Lanes, lane_of
from metering.topic.publisher import KafkaTotals
from metering.topic.watchdog import STALLED_S, Watchdog
from runtime import loops
from runtime.clock import Clock
from runtime.database import engines as databases
from runtime.database.engines import Database
from runtime.kafka import outages
from runtime.kafka.reader import LogReader
from runtime.kafka.writer import Kafka, KafkaAwayError, Writer
from runtime.outage import Outage, Pause
from runtime.telemetry.metrics import Telemetry
from runtime.telemetry.traces import Traces
from schemas.topics import LIMITS_DECISIONS, USAGE_EVENTS

GROUP = "tollgate.metering"
LOOK_EVERY_S = 1.0
"""How often a lane is looked at: whether it is to be taken over, or its `whole` to be told."""

STOP_WITHIN_S = 10.0
"""How long a batch under way may take to end, and as long again the stream."""

_COMMIT_EVERY_S = 5.0
_COMMIT_WITHIN_S = 10.0

log = logging.getLogger(__name__)


class MeteringWorker:
    """One metering worker. Made and run once, on one event loop; `writer` stays its owner's to close."""

    def __init__(
        self,
        where: Kafka,
        database: Database,
        thresholds: ports.Thresholds,
        clock: Clock,
        writer: Writer,
        *,
        pause: Pause = asyncio.sleep,
        stalled_s: float = STALLED_S,
        traces: Traces | None = None,
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._ledger = traced.ledger(database, partial(databases.now, clock=clock), traces)
        self._totals = KafkaTotals(writer, clock, self._put_record_aside)
        self._metering = flow.Metering(self._ledger, self._totals, thresholds, clock)
        self._database = Outage("metering", log, self._rest)
        self._kafka = outages.outage("metering", log, self._rest)
        both = {"database_outage": self._database, "kafka_outage": self._kafka}
        self._counting = Counting(self._metering, database, writer, clock, **both)
        self._fetches = Fetches(where, USAGE_EVENTS, GROUP, self, self._take)
        self._logs = LogReader(where, USAGE_EVENTS)
        self._watchdog = Watchdog(self._position, self._logs.bounds, self._owned, stalled_s=stalled_s)
        self._turn = asyncio.Lock()
        """Held by whoever counts or tells, so that no total of ours overtakes a newer one."""
        self._decisions = LogReader(where, LIMITS_DECISIONS)
        told = (self._metering, self._ledger, self._totals, self._publish)
        self._lanes = Lanes(
            *told, decisions=self._decisions, clock=clock, database_outage=self._database, kafka_outage=self._kafka
        )
        self._assigned = asyncio.Event()
        self._begun = False
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._counted = self._missing = self._too_large = 0
        self._done: dict[int, int] = {}
        """By partition, where the next batch begins: what lies below is counted and published."""

    @property
    def lag(self) -> Mapping[int, int]:
        """How many offsets are still to count in each partition of this worker, as of a few seconds ago."""
        return self._watchdog.lag

    @property
    def put_aside(self) -> int:
        """How many records were put aside as unreadable since the start."""
        return self._counting.put_aside

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what this worker counts, and how far behind it is."""
        counts = metrics.Counts(
            lag=lambda: self.lag,
            counted=lambda: self._counted,
            put_aside=lambda: self.put_aside,
            too_large=lambda: self._too_large,
            mended=lambda: self._lanes.mended,
            missing=lambda: self._missing,
        )
        metrics.register(telemetry, counts)

    async def run(self) -> None:
        """Count until `stop`. Raises what does not pass by itself."""
        self._begun = True
        loops.has_parts()
        work = {
            "metering's stream": self._serve(),
            "metering's group offsets": self._commit(),
            "metering's lanes": self._look_after_lanes(),
            "metering's watchdog": self._watchdog.run(),
        }
        tasks: list[asyncio.Future[Any]] = [asyncio.create_task(loops.run(*one), name=one[0]) for one in work.items()]
        tasks.append(asyncio.create_task(self._stopping.wait(), name="the stop"))
        try:
            ended, _ = await asyncio.wait([self._failure, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            for one in ended:
                _outcome(one)
        finally:
            await self._end(tasks)

    async def stop(self) -> None:
        """Let the batch under way come to its end, and leave the group. Returns in bounded time."""
        self._stopping.set()
        if not self._begun:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(3 * STOP_WITHIN_S):
                await self._ended.wait()

    async def starts(self, partitions: Sequence[int]) -> Mapping[int, Start]:
        """Say where these are read from: the ledger's position. A log that has shrunk ends the worker."""
        found = {one: await self._database.ride_out(partial(self._position, one)) for one in partitions}
        logs = await self._kafka.ride_out(self._logs.bounds)
        try:
            starts = {one: positions.start(lane_of(one), found[one], *logs[one]) for one in partitions}
        except positions.LogShrunkError as error:
            self._fail(error)
            raise
        for one, start in starts.items():
            if found[one] is None and start.offset > 0:
                log.warning("%s: nothing is counted yet, and all before offset %d is gone", lane_of(one), start.offset)
            self._done.pop(one, None)
            self._lanes.leave(one)
        self._assigned.set()
        return starts

    async def skipped(self, partition: int, first: int, next_offset: int) -> None:
        """Say what nobody counted. This topic is neither compacted nor transactional: each offset held an event."""
        begin = (await self._kafka.ride_out(self._logs.bounds))[partition].begin
        kept = min(max(begin, first), next_offset)
        self._missing += next_offset - first
        told = (
            (first, kept, "were deleted before they were counted"),
            (kept, next_offset, f"hold no record, though the log begins at {begin}: Kafka has lost them"),
        )
        for start, end, what in told:
            if start < end:
                text = "%s: offsets %d to %d %s; `tollgate reconcile` lists them as gaps"
                log.error(text, lane_of(partition), start, end - 1, what)

    async def _serve(self) -> None:
        await self._kafka.ride_out(self._logs.bounds)  # the topic is there, and Faust will reach it
        await self._fetches.start()
        await self._fetches.ended()

    async def _take(self, fetches: Sequence[Fetch]) -> None:
        """Count and publish what was fetched. After a failure, or once stopping, it does not return."""
        if not (self._stopping.is_set() or self._failure.done()):
            try:
                async with self._turn:
                    await self._count_and_publish([one for one in fetches if self._fetches.is_current(one)])
            except Exception as error:  # noqa: BLE001 - Faust would restart the agent behind what failed
                self._fail(error)
        if self._stopping.is_set() or self._failure.done():
            await asyncio.Event().wait()

    async def _count_and_publish(self, fetches: Sequence[Fetch]) -> None:
        by_partition: dict[int, list[Fetch]] = {}
        for fetch in fetches:
            by_partition.setdefault(fetch.partition, []).append(fetch)
        self._watchdog.busy(by_partition)
        for partition in by_partition:
            await self._lanes.take_over(partition)
        counting = [self._count(one) for one in by_partition.values()]
        results = await asyncio.gather(*counting, return_exceptions=True)
        counted = [one for result in results if isinstance(result, list) for one in result]
        due = self._lanes.named(counted)
        is_told = not due or await self._publish(due)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        events = sum(len(one.batch.events) for one in counted)
        loops.turned(events, waits_for="usage events")
        self._counted += events
        for one in counted:
            self._done[one.batch.partition] = one.totals.position
            if is_told:
                self._lanes.moved(one.batch.partition, one.totals.position)
            else:
                self._lanes.leave(one.batch.partition)
        for fetch in fetches:
            self._fetches.done(fetch)

    async def _count(self, fetches: Sequence[Fetch]) -> list[CountedBatch]:
        """Count fetches of one partition; return what is to be published."""
        counted: list[CountedBatch] = []
        try:
            for fetch in joined(fetches):
                counted += await self._counting.count(fetch)
        except PositionLostError as error:
            log.info("%s; the batch is dropped", error)
            self._lanes.leave(fetches[0].partition)
        except BeyondPositionError as error:
            if self._fetches.is_current(fetches[0]):
                await self._write_offsets({fetches[0].partition: error.position})
                raise
            log.info("%s; the partition is no longer ours", error)
        return counted

    async def _publish(self, counted: Sequence[CountedBatch]) -> bool:
        """Publish; say whether that was all, or some of it was left to another worker."""
        try:
            told = await self._kafka.ride_out(lambda: self._database.ride_out(lambda: self._metering.publish(counted)))
        except PositionLostError as error:
            log.info("%s; its totals are left to that one", error)
            return False
        self._lanes.told(told)
        return True

    async def _look_after_lanes(self) -> None:
        """Take lanes over as soon as they are assigned, though nothing comes on them, and tell `whole`."""
        while True:
            loops.turned(rest_s=LOOK_EVERY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._assigned.wait()
            self._assigned.clear()
            for partition in self._owned():
                async with self._turn:
                    if partition in self._owned():
                        await self._lanes.look(partition)
            async with self._turn:
                await self._lanes.tell_daily(self._owned())

    def _put_record_aside(self, key: str, error: Exception) -> None:
        self._too_large += 1
        log.error("the record of %s is not told: %s", key, error)

    async def _commit(self) -> None:
        """Tell the group now and then how far this worker is: for whoever watches the group, nothing here reads it."""
        told: dict[int, int] = {}
        while True:
            loops.turned(rest_s=_COMMIT_EVERY_S)
            await self._pause(_COMMIT_EVERY_S)
            owned = self._owned()
            offsets = {one: at for one, at in self._done.items() if one in owned and told.get(one) != at}
            if await self._write_offsets(offsets):
                told |= offsets

    async def _write_offsets(self, offsets: Mapping[int, int]) -> bool:
        """Write the group's offsets, in bounded time; say whether that was done."""
        if not offsets:
            return False
        try:
            async with asyncio.timeout(_COMMIT_WITHIN_S):
                return await self._fetches.write_offsets(offsets)
        except (KafkaError, TimeoutError) as error:
            log.debug("the group's offsets were not written: %r", error)
            return False

    async def _rest(self, seconds: float) -> None:
        """Pause between two tries of an outage."""
        self._watchdog.busy(self._owned())
        await self._pause(seconds)

    async def _position(self, partition: int) -> int | None:
        return await self._ledger.position(USAGE_EVENTS, partition)

    def _owned(self) -> list[int]:
        return self._fetches.partitions()

    def _fail(self, error: Exception) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)

    async def _end(self, tasks: Sequence[asyncio.Future[Any]]) -> None:
        self._stopping.set()
        try:
            if not self._failure.cancel():
                return  # nothing is under way
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN_S):
                    await self._turn.acquire()  # what was under way has ended, and nothing begins any more
            owned = self._owned()
            with suppress(TimeoutError, KafkaAwayError, SQLAlchemyError):  # else the next owner tells what is not told
                async with asyncio.timeout(STOP_WITHIN_S / 2):
                    for partition in owned:
                        await self._lanes.tell_whole(partition)
            await self._write_offsets({one: at for one, at in self._done.items() if one in owned})
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._leave()
            self._ended.set()

    async def _leave(self) -> None:
        leaving = asyncio.create_task(self._fetches.stop())
        await asyncio.wait({leaving}, timeout=STOP_WITHIN_S)
        if not leaving.done():
            log.warning("the consumer group was not left within %g s", STOP_WITHIN_S)
            leaving.cancel()
        await self._logs.close()
        await self._decisions.close()


def _outcome(ended: asyncio.Future[Any]) -> None:
    """Raise what a part of the worker failed with; that it was cancelled is a failure too: by whom, nobody knows."""
    if ended.cancelled():
        raise RuntimeError(f"{ended.get_name() if isinstance(ended, asyncio.Task) else ended} was cancelled")
    ended.result()
