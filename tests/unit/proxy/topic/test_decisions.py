import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta

import pytest

from domain import days
from proxy.topic.decisions import DecisionsFeed
from runtime.kafka.writer import Kafka, Record
from schemas.decisions import Decision, UsedUp
from schemas.limits import LimitType
from tests.unit.runtime.kafka.fakes import Broker, HandTime

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
TODAY = NOON.date()


def decision(day: date = TODAY, version: int = 1) -> Decision:
    return Decision(
        group_id="g",
        model_slug="a/b",
        day=day,
        requests=3,
        tokens=30,
        counted={"proxy-1": 17},
        used_up=(UsedUp(type=LimitType.TOKEN, threshold=30),),
        reset_at=days.reset_at(day),
        version=version,
    )


def record(of: Decision) -> Record:
    return Record(b"key", of.model_dump_json(by_alias=True).encode())


class Scene:
    def __init__(self) -> None:
        self.time = HandTime()
        self.broker = Broker(self.time, [[], []])
        self.heard: list[Decision] = []
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
    assert scene.heard == [decision(version=1), decision(version=2), decision(version=9)]
    assert scene.time.now - scene.feed.heard_at < 10


async def test_days_that_no_request_names_any_more_are_left_out_before_they_are_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    days = [TODAY + timedelta(days=offset) for offset in range(-3, 3)]
    scene.broker.put(*(record(decision(day)) for day in days))
    decoded: list[bytes] = []
    validate = Decision.model_validate_json

    def count(value: bytes) -> Decision:
        decoded.append(value)
        return validate(value)

    monkeypatch.setattr(Decision, "model_validate_json", count)
    async with scene.running():
        await scene.feed.caught_up()
    assert [one.day for one in scene.heard] == days[2:5]
    assert len(decoded) == 3


async def test_what_cannot_be_read_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    quoted = f'"{TODAY}"'.encode()
    scene.broker.put(Record(b"k", b"not JSON " + quoted), Record(b"k", b"{" + quoted), Record(b"k", None))
    scene.broker.put(record(decision()))
    async with scene.running():
        await scene.feed.caught_up()
    assert scene.heard == [decision()]
    assert len(caplog.messages) == 1
    assert "limits.decisions.v1: skipped 1 record(s)" in caplog.text
