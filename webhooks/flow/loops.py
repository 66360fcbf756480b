"""What intake and dispatch do again and again: each rides out an outage, and any other error ends it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from domain.sources import EventBatch, EventSource, PartitionId
from runtime import loops
from runtime.outage import Outage
from webhooks.core.batching import Batching
from webhooks.core.deliveries import Claim
from webhooks.flow import intake
from webhooks.flow.dispatch import Dispatch
from webhooks.flow.intake import Intake
from webhooks.flow.pool import Pool
from webhooks.flow.ports import Deliveries

POLL_S = 0.5
"""How long dispatch rests at most: what other processes queue, and receivers that change, are seen by then."""

Only = Callable[[EventBatch], Awaitable[EventBatch]]
"""Returns the batch without the events that must not be delivered."""

_log = logging.getLogger(__name__)


class IntakeLoop:
    """Takes in partitions, and knows how far; `wake` tells dispatch of what was queued."""

    def __init__(
        self, story: Intake, deliveries: Deliveries, wake: asyncio.Event, *, batching: Batching, only: Only | None
    ) -> None:
        self._story = story
        self._deliveries = deliveries
        self._wake = wake
        self._pool = Pool(self._take_in, batching)
        self._only = only
        self._committed: dict[PartitionId, int] = {}
        self._outages: dict[PartitionId, Outage] = {}

    def committed(self, topic: str, partition: int) -> int:
        """Return the first offset that is not yet taken in for good; 0 before `follow` has read the position."""
        return self._committed.get((topic, partition), 0)

    async def follow(self, partition: EventSource) -> None:
        """Take in one partition, for ever. May be cancelled at any moment: nothing is lost or taken in twice.

        Raise PositionLostError where another worker has taken the partition over.
        """
        outage = Outage(f"webhook intake of {partition.topic}", _log)
        await outage.ride_out(lambda: self._follow(partition, outage))

    async def _follow(self, partition: EventSource, outage: Outage) -> None:
        place = (partition.topic, partition.index)
        stored = await self._deliveries.position(*place)
        offset = partition.first_offset if stored is None else stored
        self._committed[place] = offset
        follower = intake.Follower(place, partial(self._read, partition), partition.wait, self._pool, offset=offset)
        self._outages[place] = outage
        self._pool.join(place)
        try:
            while True:
                loops.turned(0, rest_s=intake.IDLE_WAIT_S, waits_for="usage events")
                loops.turned(await follower.step(), rest_s=intake.IDLE_WAIT_S, waits_for="usage events")
        finally:
            self._pool.leave(place)

    async def _read(self, partition: EventSource, offset: int, limit: int) -> EventBatch:
        batch = await partition.read(offset, limit)
        return batch if self._only is None else await self._only(batch)

    async def _take_in(self, batches: Sequence[EventBatch]) -> None:
        is_due = await self._story.process(batches)
        for batch in batches:
            self._committed[batch.source] = batch.next_offset
            if batch.source in self._outages:
                self._outages[batch.source].passed()
        if is_due:
            self._wake.set()


class DispatchLoop:
    """Delivers what is due, again as soon as `wake` is set."""

    def __init__(self, story: Dispatch, wake: asyncio.Event) -> None:
        self._story = story
        self._wake = wake
        self._draining = False
        self._running = False
        self._idle = asyncio.Event()

    async def run(self, beside: Mapping[str, Coroutine[Any, Any, None]]) -> None:
        """Deliver until `drain`, and do what is `beside` it, by its names. Call once; any error ends all of it."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                others = [tasks.create_task(loops.run(name, work)) for name, work in beside.items()]
                await self._run(tasks, Outage("webhook dispatch", _log))
                for task in others:
                    task.cancel()
        finally:
            self._running = False
            self._idle.set()

    async def drain(self, timeout_s: float) -> bool:
        """Begin no more attempts, and wait until those in flight are finished; says whether they were in time.

        What is not finished in time is attempted again when its lease has ended.
        """
        self._draining = True
        self._wake.set()
        if not self._running:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return self._idle.is_set()

    async def _run(self, attempts: asyncio.TaskGroup, outage: Outage) -> None:
        while True:
            self._wake.clear()
            rest_s = await outage.ride_out(lambda: self._turn(attempts))
            if self._draining and self._story.is_idle:
                return
            # Not wait_for: on Python 3.11 it loses a cancellation that comes with the wake (cpython 86296).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._wake.wait()

    async def _turn(self, attempts: asyncio.TaskGroup) -> float:
        """Write what has ended, begin what is due; return how long there is nothing to do, unless woken."""
        await self._story.finish()
        if self._draining:
            return POLL_S
        claims, rest_s = await self._story.claim()
        loops.turned(len(claims), rest_s=POLL_S, waits_for="deliveries that are due")
        for claim in claims:
            attempts.create_task(self._attempt(claim))
        return 0.0 if claims else min(POLL_S, POLL_S if rest_s is None else rest_s)

    async def _attempt(self, claim: Claim) -> None:
        await self._story.attempt(claim)
        self._wake.set()
