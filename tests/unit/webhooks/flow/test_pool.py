"""What all partitions of a dispatcher have waiting is cut together; each partition's fate is its own."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from domain.positions import PositionLostError
from domain.sources import EventBatch
from infra.simulate.cutting import Partition, Time, events_a_delivery, follow
from schemas.usage import UsageEvent
from tests.unit.webhooks import kit
from webhooks.core.batching import Batching
from webhooks.flow.pool import Pool


def _events(index: int, coming: Sequence[tuple[float, str]]) -> list[tuple[float, UsageEvent]]:
    return [(at_s, kit.event(1 + 12 * number + index, name)) for number, (at_s, name) in enumerate(coming)]


class Scene:
    """Followers over one pool; `lost` are partitions that another dispatcher has, `error` fails every transaction."""

    def __init__(self, *partitions: Sequence[tuple[float, str]], size: int = 100, limit: int = 1000) -> None:
        self.time = Time()
        self.kept: list[tuple[float, list[EventBatch]]] = []
        self.lost: set[int] = set()
        self.error: Exception | None = None
        self.pool = Pool(self._keep, Batching(size, 1.0, limit), steady=self.time.seconds)
        followed = [Partition(self.time, index, _events(index, some)) for index, some in enumerate(partitions)]
        self.tasks = [asyncio.create_task(follow(one, self.pool)) for one in followed]

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


async def test_no_event_is_left_out_or_taken_twice_however_many_partitions_there_are() -> None:
    chance = random.Random(8)
    coming: list[list[tuple[float, str]]] = [[] for _ in range(12)]
    at_s = 0.0
    while at_s < 5:
        at_s += chance.expovariate(1000)
        coming[chance.randrange(12)].append((at_s, f"lab-{chance.randrange(20)}"))
    scene = Scene(*coming)
    await scene.run(8)
    assert sum(len(batch.events) for _, batches in scene.kept for batch in batches) == sum(map(len, coming))
    for index, events_of in enumerate(coming):
        stretches = scene.read_of(index)
        assert [first for first, _ in stretches] == [0, *(after for _, after in stretches[:-1])], "no gap, no repeat"
        assert stretches[-1][1] == len(events_of)
    await scene.end()


async def test_twenty_labs_over_twelve_partitions_at_a_thousand_a_second_fill_their_deliveries() -> None:
    assert await events_a_delivery(20, 12, 1000) >= 45
    assert await events_a_delivery(20, 12, 1000, apart=True) < 10, "what it would be otherwise"


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
