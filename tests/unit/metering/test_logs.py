"""A reader of logs keeps no connection that did not come about, however its start ended."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from metering import logs
from metering.logs import Bounds, Reader
from runtime import consumers
from runtime.kafka import Kafka, KafkaAwayError


class Hanging:
    """A consumer whose start never ends."""

    made: list["Hanging"]

    def __init__(self, **_: object) -> None:
        self.starting = asyncio.Event()
        self.is_stopped = False
        self.made.append(self)

    async def start(self) -> None:
        self.starting.set()
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self.is_stopped = True


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[Hanging]:
    monkeypatch.setattr(Hanging, "made", [], raising=False)
    monkeypatch.setattr(consumers, "Consumer", Hanging)
    return Hanging.made


async def until(reader: Reader) -> None:
    async for _ in reader.until({0: Bounds(0, 1)}):
        pytest.fail("there is nothing")


ASKING: dict[str, Callable[[Reader], Awaitable[object]]] = {
    "bounds": lambda reader: reader.bounds(),
    "first_since": lambda reader: reader.first_since(datetime.now(UTC)),
    "until": until,
}


@pytest.mark.parametrize("asking", ASKING)
async def test_a_start_that_hangs_is_given_up_in_time(
    asking: str, made: list[Hanging], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_ANSWER_S", 0)
    async with asyncio.timeout(5):
        with pytest.raises(KafkaAwayError, match="no answer from Kafka"):
            await ASKING[asking](Reader(Kafka("b:1"), "a.topic"))
    assert [consumer.is_stopped for consumer in made] == [True]


@pytest.mark.parametrize("asking", ASKING)
async def test_a_start_that_is_cut_off_leaves_nothing(asking: str, made: list[Hanging]) -> None:
    reader = Reader(Kafka("b:1"), "a.topic")
    task = asyncio.ensure_future(ASKING[asking](reader))
    await asyncio.sleep(0)
    await made[0].starting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made[0].is_stopped
