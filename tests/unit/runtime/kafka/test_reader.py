"""A reader of logs keeps no connection that did not come about, however its start ended."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition

from runtime.kafka import consumers, reader
from runtime.kafka.reader import LogBounds, LogReader
from runtime.kafka.writer import Kafka, KafkaAwayError
from tests.unit.proxy.virtual_time import in_virtual_time


class Hanging:
    """A consumer whose start never ends."""

    made: list["Hanging"]

    def __init__(self, *_: object, **__: object) -> None:
        self.starting = asyncio.Event()
        self.is_stopped = False
        self.made.append(self)

    async def start(self) -> None:
        self.starting.set()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.is_stopped = True


class Silent:
    """A consumer of a Kafka that goes away after its first record: each poll brings nothing, and says nothing of it."""

    def __init__(self, *_: object, **__: object) -> None:
        self.found: list[SimpleNamespace] = [SimpleNamespace(offset=0)]

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def topics(self) -> set[str]:
        return {"a.topic"}

    def assign(self, _: list[TopicPartition]) -> None:
        pass

    def seek(self, *_: object) -> None:
        pass

    async def getmany(self, place: TopicPartition, **_: object) -> dict[TopicPartition, list[SimpleNamespace]]:
        await asyncio.sleep(1)
        found, self.found = self.found, []
        return {place: found} if found else {}

    async def position(self, _: TopicPartition) -> int:
        return 1


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[Hanging]:
    monkeypatch.setattr(Hanging, "made", [], raising=False)
    monkeypatch.setattr(consumers, "Consumer", Hanging)
    return Hanging.made


async def until(reader: LogReader) -> None:
    async for _ in reader.until({0: LogBounds(0, 1)}):
        pytest.fail("there is nothing")


ASKING: dict[str, Callable[[LogReader], Awaitable[object]]] = {
    "bounds": lambda reader: reader.bounds(),
    "first_since": lambda reader: reader.first_since(datetime.now(UTC)),
    "until": until,
}


@pytest.mark.parametrize("asking", ASKING)
async def test_a_start_that_hangs_is_given_up_in_time(
    asking: str, made: list[Hanging], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_ANSWER_S", 0)
    async with asyncio.timeout(30):
        with pytest.raises(KafkaAwayError, match="no answer from Kafka"):
            await ASKING[asking](LogReader(Kafka("b:1"), "a.topic"))
    assert [consumer.is_stopped for consumer in made] == [True]


@pytest.mark.parametrize("asking", ASKING)
async def test_a_start_that_is_cut_off_leaves_nothing(asking: str, made: list[Hanging]) -> None:
    reader = LogReader(Kafka("b:1"), "a.topic")
    task = asyncio.ensure_future(ASKING[asking](reader))
    await asyncio.sleep(0)
    await made[0].starting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made[0].is_stopped


@in_virtual_time
async def test_a_kafka_that_goes_away_in_mid_reading_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "Consumer", Silent)
    loop, read = asyncio.get_running_loop(), dict[int, float]()
    with pytest.raises(KafkaAwayError, match="no answer from Kafka within 30 s"):
        async for records in LogReader(Kafka("b:1"), "a.topic").until({0: LogBounds(0, 2)}):
            await asyncio.sleep(3600)  # what its caller does meanwhile is not Kafka's silence
            read |= {record.offset: loop.time() for record in records}
    assert list(read) == [0]
    assert loop.time() - read[0] == pytest.approx(30)
