"""The follower of one partition: lingering, reading each event once, moving on."""

import itertools
from collections.abc import Sequence

import pytest

from domain.sources import EventBatch
from tests.unit.webhooks import kit
from webhooks.core.batching import Batching
from webhooks.core.deliveries import Receiver
from webhooks.flow.intake import IDLE_WAIT_S, Follower, Intake
from webhooks.flow.pool import Pool


class Scene:
    def __init__(self, *, size: int = 3, linger_s: float = 1.0, limit: int = 10, offset: int = 1) -> None:
        self.clock = kit.HandClock()
        self.partition = kit.ListPartition(self.clock)
        self.processed: list[EventBatch] = []
        self.pool = Pool(self.process, Batching(size, linger_s, limit), steady=self.clock.seconds)
        place = (kit.TOPIC, 0)
        reading = (self.partition.read, self.partition.wait)
        self.follower = Follower(place, *reading, self.pool, offset=offset, pause=self.pause)
        self.takes_s = 0.0
        self.pauses: list[float] = []

    async def process(self, batches: Sequence[EventBatch]) -> None:
        self.processed += batches
        self.clock.move(self.takes_s)

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def steps(self, count: int) -> list[tuple[int, int]]:
        for _ in range(count):
            await self.follower.step()
        return [(batch.first_offset, batch.next_offset) for batch in self.processed]


async def test_without_events_it_waits_for_the_next_one() -> None:
    scene = Scene(offset=5)
    assert await scene.steps(2) == []
    assert scene.partition.waits == [(5, IDLE_WAIT_S)] * 2


async def test_a_full_delivery_goes_at_once() -> None:
    scene = Scene()
    scene.partition.events = [kit.event(number) for number in range(1, 4)]
    assert await scene.steps(1) == [(1, 4)]
    assert scene.partition.waits == []


async def test_a_short_stretch_lingers_for_its_oldest_event_then_goes() -> None:
    scene = Scene()
    scene.partition.events = [kit.event(1)]
    scene.partition.coming = [(kit.after(0.7), kit.event(2))]
    assert await scene.steps(2) == [(1, 3)]
    assert scene.partition.waits == [(3, 1.0)]
    assert scene.clock.now == kit.after(1)


async def test_lingering_ends_when_the_delivery_is_full() -> None:
    scene = Scene()
    scene.partition.events = [kit.event(1)]
    scene.partition.coming = [(kit.after(0.2), kit.event(2)), (kit.after(0.3), kit.event(3))]
    assert await scene.steps(2) == [(1, 4)]
    assert scene.clock.now == kit.after(0.3)


async def test_events_that_are_held_are_not_read_again() -> None:
    scene = Scene()
    scene.partition.events = [kit.event(1)]
    scene.partition.coming = [(kit.after(0.5), kit.event(2, "other")), (kit.after(0.6), kit.event(3))]
    assert await scene.steps(3) == [(1, 4)]
    assert scene.partition.reads == [1, 2, 4]
    assert [event.producer.sequence for event in scene.processed[0].events] == [1, 2, 3]


async def test_each_stretch_has_a_linger_of_its_own() -> None:
    scene = Scene()
    scene.partition.coming = [(kit.after(0.5), kit.event(1)), (kit.after(2.5), kit.event(2))]
    assert await scene.steps(3) == [(1, 2)]
    assert scene.clock.now == kit.after(1.5)
    assert await scene.steps(3) == [(1, 2), (2, 3)]
    assert scene.clock.now == kit.after(3.5)


async def test_without_linger_everything_goes_at_once() -> None:
    scene = Scene(linger_s=0)
    scene.partition.events = [kit.event(1)]
    assert await scene.steps(1) == [(1, 2)]


async def test_a_backlog_goes_in_reads_of_the_limit() -> None:
    scene = Scene(size=100, limit=2)
    scene.partition.events = [kit.event(number, f"ws-{number}") for number in range(1, 6)]
    assert await scene.steps(2) == [(1, 3), (3, 5)]


async def test_behind_a_stretch_that_was_not_full_it_rests_within_the_linger_and_never_behind_a_backlog() -> None:
    for takes_s, rest_s in ((0.0, 0.0), (0.01, pytest.approx(0.09)), (0.5, 1.0)):
        scene = Scene(size=1, limit=2)
        scene.takes_s = takes_s
        scene.partition.events = [kit.event(number) for number in range(1, 4)]
        assert await scene.steps(2) == [(1, 3), (3, 4)]
        assert scene.pauses == [rest_s]


async def test_the_position_moves_past_records_that_gave_no_event() -> None:
    scene = Scene()

    async def skip(offset: int, limit: int) -> EventBatch:
        return EventBatch(kit.TOPIC, 0, "lane", offset, offset + 2, ())

    scene.follower._read = skip
    assert await scene.steps(2) == [(1, 3), (3, 5)]


async def test_intake_says_whether_there_is_something_to_deliver_now() -> None:
    receiving = Receiver("https://lab.example", enabled=True, secrets=(kit.SECRET,))
    receivers, ids = kit.FixedReceivers(takes=receiving), itertools.count()
    made = Intake(kit.ListDeliveries(), receivers, kit.HandClock(), lambda: str(next(ids)), 100)
    assert not await made.process([kit.batch(kit.event(1, "takes-none"))])
    assert await made.process([kit.batch(kit.event(2, "takes-none"), kit.event(3, "takes"), first=2)])
    assert not await made.process([kit.batch(first=4)])


async def test_an_error_of_intake_ends_it() -> None:
    scene = Scene()
    scene.partition.events = [kit.event(number) for number in range(1, 4)]

    async def fail(batches: Sequence[EventBatch]) -> None:
        raise OSError("no database")

    scene.pool._process = fail
    with pytest.raises(OSError, match="no database"):
        await scene.steps(1)
