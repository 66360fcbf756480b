import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta

import pytest

from domain import days
from proxy.topic.decisions import DecisionsFeed
from runtime.kafka.writer import Kafka, KafkaRecord
from schemas.decisions import Decision, HeardDecision, Spread, UsedUp, Whole
from schemas.limits import LimitType
from tests.unit.runtime.kafka.fakes import Broker, HandTime

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
TODAY = NOON.date()


def decision(day: date = TODAY, version: int = 1, lane: int = 0) -> Decision:
    return Decision(
        lane=lane,
        at=17,
        group_id="g",
        model_slug="a/b",
        period=day.isoformat(),
        requests=3,
        tokens=30,
        input_tokens=20,
        output_tokens=10,
        used_up=(UsedUp(type=LimitType.TOKEN, threshold=30),),
        reset_at=days.reset_at(day),
        version=version,
    )


def record(of: Decision) -> KafkaRecord:
    return KafkaRecord(b"counter/g/a/b/day", of.model_dump_json(by_alias=True).encode())


def whole(at: int, lane: int = 0) -> KafkaRecord:
    return KafkaRecord(b"whole", Whole(lane=lane, at=at).model_dump_json(by_alias=True).encode())


def heard(of: Decision) -> HeardDecision:
    """Return what a proxy makes of a decision: each of its fields under the contract's name."""
    return HeardDecision(**{name: getattr(of, name) for name in HeardDecision.__struct_fields__})


GONE = KafkaRecord(b"compacted away", b"")


class Scene:
    def __init__(self) -> None:
        self.time = HandTime()
        self.broker = Broker(self.time, [[], []])
        self.heard: list[HeardDecision | Whole | Spread] = []
        self.feed = DecisionsFeed(
            Kafka("nowhere:1"),
            self.heard.extend,
            lambda: NOON,
            steady=self.time,
            pause=self.time.pause,
            connect=self.broker.connect,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.feed.run())
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_decisions_of_all_partitions_are_handed_over() -> None:
    scene = Scene()
    scene.broker.put(record(decision(version=1)), record(decision(version=2)))
    scene.broker.put(record(decision(version=9)), partition=1)
    assert not scene.feed.is_caught_up
    async with scene.running():
        await scene.feed.caught_up()
    assert scene.feed.is_caught_up
    assert scene.heard == [heard(decision(version=1)), heard(decision(version=2)), heard(decision(version=9))]
    assert scene.time.now - scene.feed.heard_at < 10


async def test_days_that_no_request_names_any_more_are_left_out() -> None:
    scene = Scene()
    days = [TODAY + timedelta(days=offset) for offset in range(-3, 3)]
    scene.broker.put(*(record(decision(day)) for day in days))
    async with scene.running():
        await scene.feed.caught_up()
    assert [one.period for one in scene.heard if isinstance(one, HeardDecision)] == [str(day) for day in days[2:5]]


async def test_what_cannot_be_read_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    quoted = f'"{TODAY}"'.encode()
    scene.broker.put(
        KafkaRecord(b"k", b"not JSON " + quoted), KafkaRecord(b"k", b"{" + quoted), KafkaRecord(b"k", None)
    )
    scene.broker.put(record(decision()))
    async with scene.running():
        await scene.feed.caught_up()
    assert scene.heard == [heard(decision())]
    assert len(caplog.messages) == 1
    assert "limits.decisions.v2: skipped 1 record(s)" in caplog.text


async def test_whole_is_told_behind_what_was_told_before_it() -> None:
    scene = Scene()
    scene.broker.put(record(decision(version=1)), whole(5), record(decision(version=2)))
    async with scene.running():
        await scene.feed.caught_up()
    assert scene.heard == [heard(decision(version=1)), heard(decision(version=2)), Whole(lane=0, at=5)], (
        "the lane ended at 3"
    )
    scene.heard.clear()
    scene.broker.put(whole(6), record(decision(version=3)))
    async with scene.running():
        await until(lambda: len(scene.heard) == 2)
    assert scene.heard == [Whole(lane=0, at=6), heard(decision(version=3))]


async def test_behind_a_gap_whole_waits_for_the_end_that_the_lane_had() -> None:
    scene = Scene()
    scene.broker.put(whole(5))
    async with scene.running():
        await scene.feed.caught_up()
        scene.broker.put(GONE, whole(6), record(decision(version=4)))
        await until(lambda: len(scene.heard) == 3)
    assert scene.heard == [Whole(lane=0, at=5), heard(decision(version=4)), Whole(lane=0, at=6)], (
        "4 may be what was missing"
    )


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - the feed says nothing when it has handed over
            await asyncio.sleep(0)


async def test_over_how_many_lanes_a_tree_is_to_lie_is_handed_over() -> None:
    scene = Scene()
    spread = Spread(group_id="g", lanes=4)
    scene.broker.put(KafkaRecord(b"spread/g", spread.model_dump_json(by_alias=True).encode()))
    async with scene.running():
        await scene.feed.caught_up()
    assert scene.heard == [spread]
