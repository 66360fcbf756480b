"""The writer on a real broker: everything arrives, in order, and every wait ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from infra.local.kafka import Broker
from runtime.kafka import topics
from runtime.kafka import writer as runtime_kafka
from runtime.kafka.topics import Plan
from runtime.kafka.writer import Kafka, KafkaAwayError, KafkaRecord, RecordTooLargeError, Writer
from schemas.topics import GATEWAY_CONFIG, USAGE_DAILY, USAGE_EVENTS
from tests.support import records
from tests.support.records import firsts

KEY = b"the one key"
SOON_S = 0.7


@pytest.fixture
async def writer(kafka: Kafka) -> AsyncIterator[Writer]:
    await records.make_topics(kafka)
    writer = Writer(kafka, "test")
    yield writer
    await writer.close()


def numbered(count: int, first: int = 0, size: int = 0) -> list[KafkaRecord]:
    return [KafkaRecord(KEY, b"%d" % number + b" " * size) for number in range(first, first + count)]


async def numbers(where: Kafka, topic: str = USAGE_EVENTS) -> list[int]:
    """Return what KEY's partition holds."""
    return [int(record.value) for record in max((await records.read(where, topic)).values(), key=len)]


async def test_records_arrive_whole_each_in_its_keys_partition(kafka: Kafka, writer: Writer) -> None:
    sent = [KafkaRecord(b"key %d" % number, b"value %d" % number, (("a", b"%d" % number),)) for number in range(50)]

    await writer.write(USAGE_EVENTS, sent)

    found = await records.read(kafka, USAGE_EVENTS)
    for partition, there in found.items():
        expected = [record for record in sent if runtime_kafka.partition_of(record.key, 4) == partition]
        assert [(record.key, record.value, record.headers) for record in there] == expected
        assert there, "fifty keys reach every partition"


async def test_a_tombstone_is_a_record_without_a_value(kafka: Kafka, writer: Writer) -> None:
    await writer.write(GATEWAY_CONFIG, [KafkaRecord(b"group/1", None, (("version", b"3"),))])

    (record,) = (await records.read(kafka, GATEWAY_CONFIG))[0]
    assert (record.key, record.value, record.headers) == (b"group/1", None, (("version", b"3"),))


async def test_a_topic_tells_its_partitions(writer: Writer) -> None:
    assert await writer.partitions(USAGE_EVENTS) == 4
    assert await writer.partitions(GATEWAY_CONFIG) == 1


async def test_calls_at_once_keep_their_order_within_a_partition(kafka: Kafka, writer: Writer) -> None:
    calls = [writer.write(USAGE_EVENTS, numbered(10, first)) for first in range(0, 400, 10)]

    await asyncio.gather(*calls)

    assert await numbers(kafka) == list(range(400))


async def test_a_call_is_not_overtaken_by_one_that_finds_what_it_had_to_wait_for(
    kafka: Kafka, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, told = asyncio.Event(), asyncio.Event()

    async def partitions(_: str) -> int:
        if not asked.is_set():
            asked.set()
            await told.wait()
        return 4

    monkeypatch.setattr(writer, "_partitions", partitions)
    first = asyncio.create_task(writer.write(USAGE_EVENTS, numbered(10)))
    await asked.wait()
    second = asyncio.create_task(writer.write(USAGE_EVENTS, numbered(10, 10)))
    others = Writer(kafka, "others")
    for _ in range(3):  # as long as it would take to overtake
        await others.write(USAGE_DAILY, numbered(1))
    await others.close()
    told.set()
    await asyncio.gather(first, second)

    assert await numbers(kafka) == list(range(20))


async def test_more_than_a_batch_keeps_its_order(kafka: Kafka, writer: Writer) -> None:
    await writer.write(USAGE_EVENTS, numbered(60, size=50_000))

    assert await numbers(kafka) == list(range(60))


async def test_nothing_is_no_work(writer: Writer) -> None:
    await writer.write("no such topic", [])


async def test_a_record_too_large_is_refused_before_anything_is_sent(kafka: Kafka, writer: Writer) -> None:
    too_large = KafkaRecord(KEY, b"x" * 1_000_000)

    with pytest.raises(RecordTooLargeError, match=USAGE_EVENTS):
        await writer.write(USAGE_EVENTS, [*numbered(3), too_large])

    assert await numbers(kafka) == []
    await writer.write(USAGE_EVENTS, numbered(3))  # nor is anything broken
    assert await numbers(kafka) == [0, 1, 2]


async def test_the_largest_record_is_taken(kafka: Kafka, writer: Writer) -> None:
    await writer.write(USAGE_EVENTS, [KafkaRecord(KEY, b"x" * 999_800)])

    assert sum(map(len, (await records.read(kafka, USAGE_EVENTS)).values())) == 1


async def test_a_topic_that_takes_less_than_a_batch_is_no_outage(kafka: Kafka) -> None:
    (plan,) = [plan for plan in records.plans() if plan.name == USAGE_DAILY]
    narrow = Plan(plan.name, 1, 1, {**plan.config, "max.message.bytes": "1000"})
    await topics.ensure(kafka, [narrow], create=True)
    writer = Writer(kafka, "test")

    with pytest.raises(RecordTooLargeError, match=r"raise its max\.message\.bytes"):
        await writer.write(USAGE_DAILY, [KafkaRecord(KEY, b"x" * 2000)])

    await writer.write(
        USAGE_DAILY, [KafkaRecord(KEY, b"1")]
    )  # on a new producer: the old one's numbers do not fit any more
    assert await numbers(kafka, USAGE_DAILY) == [1]
    await writer.close()


async def test_a_missing_topic_says_what_makes_it(kafka: Kafka) -> None:
    writer = Writer(kafka, "test")
    with pytest.raises(KafkaAwayError, match=rf"{kafka.name(USAGE_EVENTS)} is not there: run"):
        await writer.write(USAGE_EVENTS, numbered(1))
    await writer.close()


async def test_no_kafka_is_said_within_the_bound() -> None:
    writer = Writer(Kafka("127.0.0.1:1"), "test")
    for _ in range(2):
        async with asyncio.timeout(30):
            with pytest.raises(KafkaAwayError, match="test"):
                await writer.write(USAGE_EVENTS, numbered(1), within_s=SOON_S)
    await writer.close()


async def test_a_broker_that_hangs_is_said_within_the_bound_and_nothing_overtakes(kafka_broker: Broker) -> None:
    where = Kafka(kafka_broker.bootstrap, "hang.")
    await records.make_topics(where, partitions=1)
    writer = Writer(where, "test")
    await writer.write(USAGE_EVENTS, numbered(5))
    kafka_broker.process.pause()

    async with asyncio.timeout(30):  # far from the minute that the others were given
        failed = writer.write(USAGE_EVENTS, numbered(5, 5), within_s=SOON_S)
        behind = [writer.write(USAGE_EVENTS, numbered(5, first), within_s=60) for first in (10, 15)]
        results = await asyncio.gather(failed, *behind, return_exceptions=True)
    assert [type(result) for result in results] == [KafkaAwayError] * 3

    kafka_broker.process.resume()
    await writer.write(USAGE_EVENTS, numbered(5, 5), within_s=30)
    await writer.write(USAGE_EVENTS, numbered(5, 10), within_s=30)
    assert firsts(await numbers(where)) == list(range(15))
    await writer.close()


async def test_a_batch_that_was_given_up_on_is_awaited_before_the_next_is_sent(kafka_broker: Broker) -> None:
    """Where the producer heard of another partition meanwhile it is kept, and with it what is under way."""
    where = Kafka(kafka_broker.bootstrap, "slow.")
    await records.make_topics(where, partitions=1)
    writer = Writer(where, "test")
    await writer.write(USAGE_EVENTS, numbered(1))
    connection = await writer._connected()
    kafka_broker.process.pause()
    connection.heard_at = float("inf")  # as if another partition's were acknowledged all the time

    with pytest.raises(KafkaAwayError):
        await writer.write(USAGE_EVENTS, numbered(1, 1), within_s=SOON_S / 3)
    with pytest.raises(KafkaAwayError):  # waits for the first, sends nothing
        await writer.write(USAGE_EVENTS, numbered(1, 99), within_s=SOON_S / 3)
    kafka_broker.process.resume()
    await writer.write(USAGE_EVENTS, numbered(1, 2), within_s=30)

    assert await writer._connected() is connection
    assert await numbers(where) == [0, 1, 2]
    await writer.close()


async def test_closing_ends_while_kafka_hangs_and_till_then_there_is_one_producer(kafka_broker: Broker) -> None:
    where = Kafka(kafka_broker.bootstrap, "close.")
    await records.make_topics(where, partitions=1)
    writer = Writer(where, "test")
    await writer.write(USAGE_EVENTS, numbered(1))
    kafka_broker.process.pause()
    with pytest.raises(KafkaAwayError):
        await writer.write(USAGE_EVENTS, numbered(1, 1), within_s=SOON_S)
    ending = writer._ending
    with pytest.raises(KafkaAwayError):
        await writer.write(USAGE_EVENTS, numbered(1, 1), within_s=SOON_S)
    assert writer._ending is ending, "no second producer while the first may still send"

    async with asyncio.timeout(30):
        await writer.close()


async def test_kills_of_the_broker_in_the_middle_lose_nothing_and_reorder_nothing(kafka_broker: Broker) -> None:
    where = Kafka(kafka_broker.bootstrap, "kill.")
    await records.make_topics(where, partitions=2)
    writer = Writer(where, "test")
    sent = asyncio.Event()

    async def keep_writing() -> None:
        for first in range(0, 2000, 20):
            while True:
                try:
                    await writer.write(USAGE_EVENTS, numbered(20, first), within_s=2)
                    break
                except KafkaAwayError:
                    await asyncio.sleep(0.05)  # as a caller's pause between two tries
            sent.set()

    writing = asyncio.create_task(keep_writing())
    for _ in range(2):
        sent.clear()
        await sent.wait()
        kafka_broker.process.kill()
        await asyncio.to_thread(kafka_broker.start)
    await asyncio.wait_for(writing, 60)

    assert firsts(await numbers(where)) == list(range(2000))
    await writer.close()
