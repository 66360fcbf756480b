"""How full deliveries get: the real followers and their pool, in simulated time (contract 5).

Time is simulated, so the same numbers give the same result.
"""

import asyncio
import heapq
import random
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count

from domain.sources import EventBatch
from schemas.spooled import AnyEvent
from schemas.usage import Outcome, Producer, Tokens, UsageEvent, UsageSource
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
        """Return the moment."""
        return self.now_s

    async def until(self, at_s: float) -> None:
        """Return at a moment; a microsecond passes at least, or a wait for less than can be told would never end."""
        at_s = max(at_s, self.now_s + 1e-6)
        ended = asyncio.get_running_loop().create_future()
        heapq.heappush(self._due, (at_s, next(self._numbers), ended))
        await ended

    async def pass_to(self, end_s: float) -> None:
        """Let time pass to a moment, as fast as all that waits lets it."""
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

    def __init__(self, time: Time, index: int, coming: Sequence[tuple[float, UsageEvent]]) -> None:
        self.place = ("topic", index)
        self._time = time
        self._index = index
        self._coming = coming

    async def read(self, offset: int, limit: int) -> EventBatch:
        """Return what has come."""
        there = [event for at_s, event in self._coming[offset : offset + limit] if at_s <= self._time.now_s]
        return EventBatch("topic", self._index, "lane", offset, offset + len(there), tuple(there))

    async def wait(self, offset: int, timeout_s: float) -> None:
        """Return when an event has this offset, or at the timeout."""
        comes_s = self._coming[offset][0] if offset < len(self._coming) else float("inf")
        await self._time.until(min(comes_s, self._time.now_s + timeout_s))


async def events_a_delivery(
    labs: int, partitions: int, rate: float, seconds: float = 5.0, *, apart: bool = False
) -> float:
    """Return how many events a delivery has while events come; `apart`: where each partition has a pool of its own."""
    chance, at_s, numbers = random.Random(8), 0.0, count()
    coming: list[list[tuple[float, UsageEvent]]] = [[] for _ in range(partitions)]
    while at_s < seconds:
        at_s += chance.expovariate(rate)
        coming[chance.randrange(partitions)].append((at_s, event(next(numbers), f"lab-{chance.randrange(labs)}")))
    time, cuts = Time(), list[tuple[float, list[AnyEvent]]]()

    async def keep(batches: Sequence[EventBatch]) -> None:
        cuts.append((time.now_s, [one for batch in batches for one in batch.events]))

    pools = [Pool(keep, Batching(100, 1.0, 1000), steady=time.seconds) for _ in range(partitions if apart else 1)]
    followed = [Partition(time, index, some) for index, some in enumerate(coming)]
    tasks = [asyncio.create_task(follow(one, pools[one.place[1] % len(pools)])) for one in followed]
    await time.pass_to(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    deliveries = [one for _, events in cuts for one in batching.cut(events, 100)]
    return sum(map(len, deliveries)) / len(deliveries)


async def follow(partition: Partition, pool: Pool) -> None:
    """Follow a partition into a pool, for ever."""
    follower = Follower(partition.place, partition.read, partition.wait, pool, offset=0)
    pool.join(partition.place)
    try:
        while True:
            await follower.step()
    finally:
        pool.leave(partition.place)


def event(number: int, workspace_id: str) -> UsageEvent:
    """Make the `number`-th event of a workspace."""
    return UsageEvent(
        idempotency_key=f"{number:026d}",
        request_id=f"00000000-0000-4000-8000-{number:012d}",
        timestamp=datetime(2025, 3, 1, 12, tzinfo=UTC),
        workspace_id=workspace_id,
        group_id=f"group-of-{workspace_id}",
        charged_groups=(f"group-of-{workspace_id}",),
        external_entity_id="customer",
        api_key_prefix="sky_aaaaaaaaaaaa",
        model_slug="lab/model",
        tokens=Tokens(input_tokens=100, output_tokens=50, cached_input_tokens=0),
        usage_source=UsageSource.PROVIDER,
        outcome=Outcome.COMPLETE,
        stream=False,
        latency_ms=900,
        first_byte_ms=100,
        producer=Producer(instance="proxy", sequence=number + 1),
    )
