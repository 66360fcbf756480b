import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from runtime.kafka import feed
from runtime.kafka.feed import Feed, FeedRecord, SkippedRecords
from runtime.kafka.writer import Kafka, KafkaAwayError, KafkaRecord
from runtime.turns import ROUNDS, Turns
from tests.unit.runtime.kafka.fakes import Broker, HandTime

WHERE = Kafka("nowhere:1")


class Scene:
    """A feed over one broker."""

    def __init__(self, *, partitions: int = 1, silence_s: float = 10.0, from_end: bool = False) -> None:
        self.time = HandTime()
        self.broker = Broker(self.time, [[] for _ in range(partitions)])
        self.heard: list[FeedRecord] = []
        self.ends = 0
        self.feed = Feed(
            WHERE,
            "a.topic.v1",
            self.heard.extend,
            on_ends=self.end,
            from_end=from_end,
            silence_s=silence_s,
            steady=self.time,
            pause=self.time.pause,
            connect=self.broker.connect,
        )

    def end(self) -> None:
        self.ends += 1

    def keys(self) -> list[bytes]:
        return [record.key for record in self.heard]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.feed.run())
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def until(self, is_so: Callable[[], bool]) -> None:
        for _ in range(10_000):
            if is_so():
                return
            await asyncio.sleep(0)
        pytest.fail("it never came")

    async def passed(self, seconds: float) -> None:
        until = self.time.now + seconds
        await self.until(lambda: self.time.now >= until)

    async def heard_of(self, count: int) -> None:
        await self.until(lambda: len(self.heard) >= count)


def records(*keys: str) -> list[KafkaRecord]:
    return [KafkaRecord(key.encode(), b"v") for key in keys]


async def test_everything_from_the_beginning_then_what_comes() -> None:
    scene = Scene(partitions=2)
    scene.broker.put(*records("a", "b"))
    scene.broker.put(*records("c"), partition=1)
    assert not scene.feed.is_caught_up
    async with scene.running():
        await scene.feed.caught_up()
        assert scene.heard == [
            FeedRecord(b"a", b"v", (), 0, 0),
            FeedRecord(b"b", b"v", (), 0, 1),
            FeedRecord(b"c", b"v", (), 1, 0),
        ]
        scene.broker.put(KafkaRecord(b"d", None, (("version", b"7"),)))
        await scene.until(lambda: len(scene.heard) == 4)
    assert scene.heard[-1] == FeedRecord(b"d", None, (("version", b"7"),), 0, 2)
    assert scene.ends == 1
    assert not scene.broker.consumers[-1].is_running


async def test_from_the_end_on_only_what_comes_is_heard_also_after_an_outage() -> None:
    scene = Scene(partitions=2, from_end=True)
    scene.broker.put(*records("old"))
    async with scene.running():
        await scene.feed.caught_up()
        scene.broker.put(*records("a"))
        await scene.heard_of(1)
        scene.broker.is_away = True
        scene.broker.consumers[-1].is_mute = True
        scene.broker.put(*records("missed"), partition=1)
        await scene.passed(30)
        scene.broker.is_away = False
        known = len(scene.broker.consumers)
        await scene.until(lambda: len(scene.broker.consumers) > known and scene.broker.consumers[-1].is_running)
        await scene.passed(1)
        scene.broker.put(*records("b"), partition=1)
        await scene.heard_of(2)
    assert scene.keys() == [b"a", b"b"]


async def test_a_topic_whose_last_records_are_compacted_away_is_read_to_its_end() -> None:
    scene = Scene()
    scene.broker.put(*records("a", "compacted away"))
    async with scene.running():
        await scene.feed.caught_up()
    assert scene.keys() == [b"a"]


async def test_a_topic_that_keeps_nothing_is_read_to_its_end() -> None:
    scene = Scene()
    scene.broker.put(*records("gone"))
    scene.broker.firsts[0] = 1
    async with scene.running():
        await scene.feed.caught_up()
    assert scene.heard == []


async def test_not_caught_up_before_the_last_partition_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BATCH", 2)
    scene = Scene(partitions=2)
    scene.broker.put(*records("a"))
    scene.broker.put(*records("b", "c", "d"), partition=1)
    seen: list[tuple[bytes, bool]] = []
    scene.feed._on_records = lambda given: seen.extend((record.key, scene.feed.is_caught_up) for record in given)
    async with scene.running():
        await scene.feed.caught_up()
    assert [key for key, _ in seen] == [b"a", b"b", b"c", b"d"]
    assert not any(is_caught_up for _, is_caught_up in seen)


async def test_a_long_topic_is_read_in_turns_so_that_requests_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "BATCH", 1)
    scene = Scene()
    scene.broker.put(*records("a", "b", "c"))
    scene.feed._turns = Turns(monotonic=lambda: 0.0)  # by rounds of the loop alone
    rounds: list[int] = []  # before each record
    async with scene.running():
        for count in (1, 2, 3):
            rounds.append(0)
            while len(scene.heard) < count:
                await asyncio.sleep(0)
                rounds[-1] += 1
    assert min(rounds[1:]) >= ROUNDS


async def test_a_consumer_that_hears_nothing_is_replaced_and_the_place_is_kept() -> None:
    scene = Scene()
    scene.broker.put(*records("a"))
    async with scene.running():
        await scene.feed.caught_up()
        scene.broker.consumers[0].is_mute = True
        scene.broker.put(*records("b"))
        before = scene.time.now
        await scene.until(lambda: len(scene.heard) == 2)
        assert 10 <= scene.time.now - before < 13
        assert [consumer.seeks for consumer in scene.broker.consumers[:2]] == [{}, {0: 1}]
        assert not scene.broker.consumers[0].is_running
    assert scene.keys() == [b"a", b"b"]


async def test_a_consumer_that_hears_something_is_kept() -> None:
    scene = Scene()
    async with scene.running():
        for number in range(10):
            await scene.passed(8)
            scene.broker.put(*records(str(number)))
            await scene.heard_of(number + 1)
        assert len(scene.broker.consumers) == 1
        assert scene.time.now - scene.feed.heard_at < 2


async def test_an_outage_is_waited_out_and_said_once_at_each_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    scene = Scene()
    scene.broker.put(*records("a"))
    async with scene.running():
        await scene.feed.caught_up()
        scene.broker.is_away = True
        await scene.until(lambda: len(scene.broker.consumers) > 20)
        assert len(caplog.messages) == 1
        scene.broker.put(*records("b"))
        scene.broker.is_away = False
        await scene.until(lambda: len(scene.heard) == 2)
    assert [message.partition(":")[0] for message in caplog.messages] == [
        "the reader of a.topic.v1 waits for Kafka",
        "the reader of a.topic.v1 goes on",
    ]


async def test_a_missing_topic_is_named() -> None:
    scene = Scene()
    scene.broker.is_missing = True
    with pytest.raises(KafkaAwayError, match=r"a\.topic\.v1 is not there: run `tollgate migrate`"):
        await feed.ends(WHERE, "a.topic.v1", scene.broker.connect)


async def test_what_was_read_but_not_handed_over_is_read_again() -> None:
    scene = Scene()
    scene.broker.put(*records("a", "b"))

    async def fail(_: object) -> int:
        raise OSError("the connection broke between two answers")

    made = scene.broker.connect

    def connect(where: Kafka) -> object:
        consumer = made(where)
        if len(scene.broker.consumers) == 1:
            consumer.position = fail  # type: ignore[method-assign, assignment]
        return consumer

    scene.feed._connect = connect  # type: ignore[assignment]
    async with scene.running():
        await scene.feed.caught_up()
    assert scene.keys() == [b"a", b"b"]


async def test_what_a_receiver_raises_ends_the_feed_also_where_it_looks_like_an_outage() -> None:
    scene = Scene()
    scene.broker.put(*records("a"))

    def fail(_: object) -> None:
        raise OSError("a bug")

    scene.feed._on_records = fail
    with pytest.raises(OSError, match="a bug"):
        await scene.feed.run()
    assert not scene.broker.consumers[0].is_running


async def test_a_stop_that_ends_in_a_cancellation_does_not_end_the_feed() -> None:
    scene = Scene(silence_s=2)
    scene.broker.fails_to_stop = True
    async with scene.running():
        await scene.until(lambda: len(scene.broker.consumers) == 3)
        scene.broker.put(*records("a"))
        await scene.until(lambda: len(scene.heard) == 1)


async def test_a_reload_reads_everything_again_and_says_when_it_is_through() -> None:
    scene = Scene()
    scene.broker.put(*records("a", "b"))
    async with scene.running():
        await scene.feed.caught_up()
        scene.broker.put(*records("c"))
        await scene.until(lambda: len(scene.heard) == 3)
        scene.feed.reload()
        await scene.until(lambda: scene.ends == 2)
        assert scene.feed.is_caught_up
    assert scene.keys() == [b"a", b"b", b"c", b"a", b"b", b"c"]


def test_what_cannot_be_read_is_said_once_a_minute_without_its_content(caplog: pytest.LogCaptureFixture) -> None:
    time = HandTime()
    unreadable = SkippedRecords("a.topic.v1", time)
    for _ in range(100):
        unreadable.skip("partition 0, offset 1", ValueError("a secret"))
    assert len(caplog.messages) == 1
    time.now += 60
    unreadable.skip("partition 0, offset 2", ValueError("a secret"))
    assert caplog.messages[1] == (
        "a.topic.v1: skipped 100 record(s) that cannot be used, the last at partition 0, offset 2: ValueError"
    )
    assert "a secret" not in caplog.text


async def test_a_topic_without_partitions_is_away_and_not_read_to_its_ends() -> None:
    scene = Scene(partitions=0)
    async with scene.running():
        await scene.passed(5)
        assert not scene.feed.is_caught_up
        scene.broker.partitions.append([])
        scene.broker.put(*records("a"))
        await scene.until(lambda: scene.feed.is_caught_up)
    assert scene.keys() == [b"a"]
    scene.broker.partitions.clear()
    with pytest.raises(KafkaAwayError, match="is not there"):
        await feed.ends(WHERE, "a.topic.v1", scene.broker.connect)
