"""What all partitions of a dispatcher have waiting is cut together; each partition's fate is its own."""

import asyncio
import heapq
import random
from collections.abc import Sequence
from itertools import count

import pytest

from domain.positions import PositionLostError
from domain.sources import EventBatch
from tests.unit.webhooks import kit
from webhooks.core import batching
from webhooks.core.batching import Batching
from webhooks.flow.intake import Follower
from webhooks.flow.pool import Pool

TURNS = 50
"""More turns of the loop than any one step of a follower takes without waiting."""


class Time:
    """Seconds that pass when nothing else is to be done."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()

    def seconds(self) -> float:
        return self.now_s

    async def until(self, at_s: float) -> None:
        ended = asyncio.get_running_loop().create_future()
        heapq.heappush(self._due, (at_s, next(self._numbers), ended))
        await ended

    async def pass_to(self, end_s: float) -> None:
        while True:
            for _ in range(TURNS):
                await asyncio.sleep(0)
            if not self._due or self._due[0][0] > end_s:
                return
            self.now_s, _, ended = heapq.heappop(self._due)
            if not ended.done():
                ended.set_result(None)


class Partition:
    """Events that come at their moments."""

    def __init__(self, time: Time, index: int, coming: Sequence[tuple[float, str]]) -> None:
        self.place = ("topic", index)
        self._time = time
        self._index = index
        self._coming = [(at_s, kit.event(1 + 12 * number + index, name)) for number, (at_s, name) in enumerate(coming)]

    async def read(self, offset: int, limit: int) -> EventBatch:
        there = [event for at_s, event in self._coming[offset : offset + limit] if at_s <= self._time.now_s]
        return EventBatch("topic", self._index, "lane", offset, offset + len(there), tuple(there))

    async def wait(self, offset: int, timeout_s: float) -> None:
        comes_s = self._coming[offset][0] if offset < len(self._coming) else float("inf")
        await self._time.until(max(self._time.now_s, min(comes_s, self._time.now_s + timeout_s)))


class Scene:
    """Followers over one pool; `lost` are partitions that another dispatcher has, `error` fails every transaction."""

    def __init__(self, *partitions: Sequence[tuple[float, str]], size: int = 100, limit: int = 1000) -> None:
        self.time = Time()
        self.kept: list[tuple[float, list[EventBatch]]] = []
        self.lost: set[int] = set()
        self.error: Exception | None = None
        self.pool = Pool(self._keep, Batching(size, 1.0, limit), steady=self.time.seconds)
        self.partitions = [Partition(self.time, index, coming) for index, coming in enumerate(partitions)]
        self.tasks = [asyncio.create_task(self._follow(one)) for one in self.partitions]

    async def _follow(self, partition: Partition) -> None:
        follower = Follower(partition.place, partition.read, partition.wait, self.pool, offset=0)
        self.pool.join(partition.place)
        try:
            while True:
                await follower.step()
        finally:
            self.pool.leave(partition.place)

    async def _keep(self, batches: Sequence[EventBatch]) -> None:
        if self.error is not None:
            raise self.error
        for batch in batches:
            if batch.partition in self.lost:
                raise PositionLostError(batch)
        self.kept.append((self.time.now_s, list(batches)))

    async def run(self, seconds: float) -> None:
        await self.time.pass_to(seconds)

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def read_of(self, index: int) -> list[tuple[int, int]]:
        return [
            (batch.first_offset, batch.next_offset)
            for _, batches in self.kept
            for batch in batches
            if batch.partition == index
        ]


async def test_one_workspaces_events_of_all_partitions_fill_one_delivery() -> None:
    scene = Scene(*([(0.01 * number, "ws")] for number in range(4)), size=4)
    await scene.run(0.5)
    ((at_s, batches),) = scene.kept
    assert (at_s, sorted(batch.partition for batch in batches)) == (0.03, [0, 1, 2, 3])
    await scene.end()


async def test_the_oldest_event_of_any_partition_ends_the_linger_of_all() -> None:
    scene = Scene([(0.0, "a")], [(0.9, "b")])
    await scene.run(0.99)
    assert scene.kept == []
    await scene.run(1.5)
    assert [(at_s, len(batches)) for at_s, batches in scene.kept] == [(1.0, 2)]
    await scene.end()


async def test_twenty_labs_over_twelve_partitions_at_a_thousand_a_second_fill_their_deliveries() -> None:
    """Each partition alone gave 4.6 events a delivery."""
    chance = random.Random(8)
    coming: list[list[tuple[float, str]]] = [[] for _ in range(12)]
    at_s = 0.0
    while at_s < 5:
        at_s += chance.expovariate(1000)
        coming[chance.randrange(12)].append((at_s, f"lab-{chance.randrange(20)}"))
    scene = Scene(*coming)
    await scene.run(8)
    cuts = [(cut_s, [event for batch in batches for event in batch.events]) for cut_s, batches in scene.kept]
    assert sum(len(events) for _, events in cuts) == sum(map(len, coming))
    deliveries = [one for cut_s, events in cuts if cut_s < 5 for one in batching.cut(events, 100)]  # while they come
    assert sum(map(len, deliveries)) / len(deliveries) >= 45
    for index, events_of in enumerate(coming):
        stretches = scene.read_of(index)
        assert [first for first, _ in stretches] == [0, *(after for _, after in stretches[:-1])], "no gap, no repeat"
        assert stretches[-1][1] == len(events_of)
    await scene.end()


async def test_a_partition_that_another_dispatcher_has_fails_alone() -> None:
    scene = Scene([(0.0, "ws")], [(0.1, "ws")], [(0.2, "ws")])
    scene.lost = {1}
    await scene.run(3)
    assert [task.done() for task in scene.tasks] == [False, True, False]
    with pytest.raises(PositionLostError):
        await scene.tasks[1]
    assert (scene.read_of(0), scene.read_of(1), scene.read_of(2)) == ([(0, 1)], [], [(0, 1)])
    await scene.end()


async def test_an_error_of_the_transaction_is_raised_by_each_that_was_in_it() -> None:
    scene = Scene([(0.0, "ws")], [(0.1, "ws")], [(9.0, "ws")])
    scene.error = OSError("no database")
    await scene.run(3)
    assert [task.done() for task in scene.tasks] == [True, True, False]
    for task in scene.tasks[:2]:
        with pytest.raises(OSError, match="no database"):
            await task
    await scene.end()


async def test_a_follower_that_is_cancelled_leaves_the_others_theirs() -> None:
    scene = Scene([(0.0, "ws")], [(0.1, "ws")])
    gate = asyncio.Event()
    keep = scene.pool._process

    async def slow(batches: Sequence[EventBatch]) -> None:
        await gate.wait()
        await keep(batches)

    scene.pool._process = slow
    await scene.run(1.0)
    scene.tasks[0].cancel()
    await asyncio.gather(scene.tasks[0], return_exceptions=True)
    gate.set()
    await scene.run(4)
    assert (scene.read_of(1), scene.tasks[1].done()) == ([(0, 1)], False)
    await scene.end()


async def test_a_stretch_whose_partition_was_taken_away_is_not_cut() -> None:
    scene = Scene([(0.0, "ws")], [(0.1, "ws")])
    await scene.run(0.5)
    scene.tasks[0].cancel()
    await asyncio.gather(scene.tasks[0], return_exceptions=True)
    await scene.run(4)
    assert (scene.read_of(0), scene.read_of(1)) == ([], [(0, 1)])
    await scene.end()
