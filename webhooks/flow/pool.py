"""What all partitions of one dispatcher have waiting: cut together, so that a workspace's deliveries get full.

Never moves a position but with what lies below it, and never lets one partition's failure be another's.

A stretch is what was read of one partition and is not cut yet. All stretches are cut at once, in one transaction that
moves all their positions, by the rules of `webhooks.core.batching` over all their events together.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from domain.positions import PositionLostError
from domain.sources import EventBatch, PartitionId
from runtime import loops
from runtime.clock import Steady
from webhooks.core import batching
from webhooks.core.batching import Batching, CutNow, Wait

MOST = 5000
"""Events of all partitions in one transaction: cut then, full deliveries or not. A read more may be in it."""

Process = Callable[[Sequence[EventBatch]], Awaitable[None]]
"""Cuts and keeps stretches, in one transaction."""


class Pool:
    """Holds at most one stretch of each partition, and one more of it while that is under way."""

    def __init__(self, process: Process, batching: Batching, *, steady: Steady = time.monotonic) -> None:
        self.batching = batching
        self._together = replace(batching, read_limit=max(MOST, batching.read_limit))
        self._process = process
        self._steady = steady
        self._members: set[PartitionId] = set()
        self._held: dict[PartitionId, tuple[EventBatch, float]] = {}
        """Each stretch, and when its first event was seen."""
        self._under_way: dict[PartitionId, asyncio.Future[None]] = {}
        self._cuts: set[asyncio.Task[None]] = set()

    def join(self, place: PartitionId) -> None:
        """Begin to follow a partition."""
        self._members.add(place)

    def leave(self, place: PartitionId) -> None:
        """Forget what a partition has waiting; what is under way comes to its end."""
        self._members.discard(place)
        self._held.pop(place, None)
        self._under_way.pop(place, None)

    def held(self, place: PartitionId) -> EventBatch | None:
        """Return a partition's stretch; None where it has none, or that was cut."""
        found = self._held.get(place)
        return None if found is None else found[0]

    def add(self, place: PartitionId, batch: EventBatch) -> None:
        """Keep what was read of a partition, behind what is held of it."""
        held, seen_s = self._held.get(place, (None, self._steady()))
        if held is not None:
            batch = replace(batch, first_offset=held.first_offset, events=held.events + batch.events)
        self._held[place] = (batch, seen_s)

    def verdict(self) -> CutNow | Wait:
        """Say whether what is held is cut now; else for how many more events of one partition to wait, and how long."""
        events = [event for stretch, _ in self._held.values() for event in stretch.events]
        if not events:  # records that nobody can read: the positions move all the same
            return CutNow()
        fullest = max(len(stretch.events) for stretch, _ in self._held.values())
        room = self.batching.read_limit - fullest
        if room <= 0:
            return CutNow()
        oldest_s = min(seen_s for stretch, seen_s in self._held.values() if stretch.events)
        verdict = batching.decide(events, self._steady() - oldest_s, self._together)
        if isinstance(verdict, Wait):
            return Wait(verdict.left_s, min(room, max(1, verdict.missing // max(1, len(self._members)))))
        return verdict

    async def cut(self, place: PartitionId) -> float | None:
        """Cut all that is held; return when that of `place` is kept. Raises what became of that one.

        Return for how long to rest then; None: `place` gave all that it may at once, and may have more.
        """
        began_s, own = self._steady(), self.held(place)
        stretches = [stretch for stretch, _ in self._held.values()]
        self._held.clear()
        loop = asyncio.get_running_loop()
        ends = [loop.create_future() for _ in stretches]
        self._under_way |= {one.source: ended for one, ended in zip(stretches, ends, strict=True)}
        # A task of its own: this follower may be cancelled, and the others' stretches are in it too.
        task = asyncio.create_task(self._cut(stretches, ends), name="a cut of deliveries")
        self._cuts.add(task)
        task.add_done_callback(self._cuts.discard)
        await self.kept(place)
        if own is not None and len(own.events) >= self.batching.read_limit:
            return None
        return loops.rest_s(self._steady() - began_s, 0.0, self.batching.linger_s)

    async def kept(self, place: PartitionId) -> None:
        """Return when what was cut of a partition is kept. Raises what became of it."""
        ended = self._under_way.get(place)
        if ended is None:
            return
        try:
            await ended
        finally:
            self._under_way.pop(place, None)

    async def _cut(self, stretches: Sequence[EventBatch], ends: Sequence[asyncio.Future[None]]) -> None:
        """Process them together; where another dispatcher has one of their partitions, each apart."""
        try:
            await self._process(stretches)
        except PositionLostError as error:
            if len(stretches) == 1:
                _fail(ends, error)
                return
            for stretch, ended in zip(stretches, ends, strict=True):
                await self._cut([stretch], [ended])
        except Exception as error:  # noqa: BLE001 - each follower raises it
            _fail(ends, error)
        else:
            for ended in ends:
                if not ended.done():
                    ended.set_result(None)


def _fail(ends: Sequence[asyncio.Future[None]], error: Exception) -> None:
    for ended in ends:
        if not ended.done():
            ended.set_exception(error)
            ended.exception()  # seen: a follower that has ended asks no more
