"""Keys find the same partition as with Kafka's own clients, and headers are CloudEvents'."""

import asyncio
from datetime import UTC, datetime

import pytest
from aiokafka.partitioner import murmur2

from runtime.kafka import writer as kafka
from runtime.kafka.writer import Kafka
from runtime.settings import Settings

# from UtilsTest.testMurmur2 of Apache Kafka's Java client
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hashed"), MURMUR2.items())
@pytest.mark.parametrize("partitions", [1, 2, 12, 1000])
def test_the_partition_of_a_key_is_that_of_kafkas_own_clients(key: bytes, hashed: int, partitions: int) -> None:
    assert murmur2(key) == hashed & 0xFFFFFFFF
    assert kafka.partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions


def test_every_name_gets_the_prefix() -> None:
    assert Kafka("b:1", "lab.").name("usage.events.v1") == "lab.usage.events.v1"
    assert Kafka("b:1").name("usage.events.v1") == "usage.events.v1"


def test_the_settings_say_where_kafka_is() -> None:
    assert Kafka.of(Settings(kafka_bootstrap="b:1", kafka_topic_prefix="lab.")) == Kafka("b:1", "lab.")


def test_without_the_setting_there_is_no_kafka() -> None:
    with pytest.raises(ValueError, match="TOLLGATE_KAFKA_BOOTSTRAP"):
        Kafka.of(Settings())


def test_headers_are_a_cloud_events_in_binary_mode() -> None:
    at = datetime(2026, 2, 3, 4, 5, 6, 789_999, tzinfo=UTC)
    assert dict(kafka.cloud_event("tollgate.usage.v1", "01K", "spool-1", at)) == {
        "ce_id": b"01K",
        "ce_type": b"tollgate.usage.v1",
        "ce_source": b"spool-1",
        "ce_specversion": b"1.0",
        "ce_time": b"2026-02-03T04:05:06.789Z",
    }


class Ending:
    """A producer's connection whose end the test brings about."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.may_end = asyncio.Event()

    async def end(self) -> None:
        await self.may_end.wait()
        raise OSError("would not close")


async def test_an_old_producer_that_does_not_end_is_said_and_how_it_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka, "_CLOSE_WITHIN_S", 0)
    writer, ending = kafka.Writer(Kafka("b:1"), "the relay"), Ending()
    writer._retire(ending)  # type: ignore[arg-type]
    for _ in range(3):
        await asyncio.sleep(0)
    text = "the relay: the producer before has not ended within 0 s; nothing is written until it has"
    assert caplog.messages == [text]
    ending.may_end.set()
    await asyncio.wait({writer._ending})  # type: ignore[type-var]
    await asyncio.sleep(0)
    assert caplog.messages[1:] == ["a producer's connections failed while they were closed"]
