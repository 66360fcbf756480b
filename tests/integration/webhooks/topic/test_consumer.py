"""Intake from a real Kafka: partitions shared by a group, positions in the database (counting 7)."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from sqlalchemy import func, select

from infra.local.kafka import Broker
from runtime.database.engines import Database
from runtime.kafka.feed import SkippedRecords
from runtime.kafka.writer import Kafka
from schemas.usage import UsageEvent
from tests.integration.webhooks.topic.scene import PARTITIONS, PATIENCE_S, TOPIC, Scene, events, scene_on, shares
from tests.support import records
from tests.unit.webhooks import kit
from webhooks.store import tables
from webhooks.topic import consumer as intake_consumer
from webhooks.topic import partition
from webhooks.topic.consumer import IntakeConsumer


@pytest.fixture
async def scene(kafka: Kafka, postgres: Database) -> AsyncIterator[Scene]:
    async with scene_on(kafka, postgres, PARTITIONS) as made:
        yield made


@pytest.fixture
async def alone(kafka: Kafka, postgres: Database) -> AsyncIterator[Scene]:
    """A topic of one partition."""
    async with scene_on(kafka, postgres, 1) as made:
        yield made


async def test_every_event_of_every_partition_is_taken_in_once(scene: Scene) -> None:
    sent = events(2500)
    await scene.write(sent)
    member = scene.join()
    assert member.stream.blocked is not None
    await scene.until_taken(sent)
    assert member.stream.blocked is None
    await scene.until(lambda: sum(scene.positions().values()) == len(sent))
    assert set(scene.taken().values()) == {1}


async def test_two_dispatchers_share_the_partitions_and_one_that_ends_is_replaced(scene: Scene) -> None:
    first, second = scene.join(), scene.join()
    await scene.until(lambda: first.stream.blocked is None and second.stream.blocked is None)
    await scene.until(lambda: shares(first, second) == [2, 2])
    sent = events(500)
    await scene.write(sent)
    await scene.until_taken(sent)
    await first.stop()
    more = events(500, first=501)
    await scene.write(more)
    await scene.until_taken(more)
    assert shares(second) == [4]
    assert set(scene.taken().values()) == {1}


async def test_two_that_both_believe_they_own_a_partition_take_no_event_twice(scene: Scene) -> None:
    """Two groups: each gives all partitions to its one member, as after a rebalance that one of them missed."""
    scene.join("one", linger_ms=20)
    scene.join("two", linger_ms=20)
    sent: list[UsageEvent] = []
    for first in range(1, 2001, 200):
        some = events(200, first)
        await scene.write(some)
        sent += some
        await scene.until_taken(some)
    await scene.until(lambda: sum(scene.positions().values()) == len(sent))
    assert set(scene.taken().values()) == {1}
    count = select(func.count()).select_from(tables.DELIVERY_EVENT)
    assert scene.database.read_now(lambda connection: connection.execute(count).scalar_one()) == len(sent)


async def test_a_member_without_partitions_is_ready_and_takes_over(alone: Scene) -> None:
    first, second = alone.join(), alone.join()
    await alone.until(lambda: first.stream.blocked is None and second.stream.blocked is None)
    await alone.until(lambda: sorted(shares(first, second)) == [0, 1])
    owner = first if shares(first) == [1] else second
    await owner.stop()
    await alone.write(events(5))
    await alone.until_taken(events(5))


async def test_a_member_that_has_nothing_to_read_stays_in_the_group(
    alone: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka takes a member that asks for no records for dead, also where it has no partition to ask for."""
    monkeypatch.setattr(intake_consumer, "_POLL_INTERVAL_S", 1.0)
    first, second = alone.join(), alone.join()
    await alone.until(lambda: sorted(shares(first, second)) == [0, 1])
    idle, owner = (first, second) if shares(first) == [0] else (second, first)
    session = idle.stream._session
    assert session is not None
    coordinator = session._consumer._coordinator
    asked = coordinator._subscription._last_fetch_ended
    await alone.until(
        lambda: bool(coordinator._subscription._last_fetch_ended > asked + 2 * intake_consumer._POLL_INTERVAL_S)
    )
    await owner.stop()
    await alone.write(events(5))
    await alone.until_taken(events(5))
    assert idle.stream._session is session


async def test_a_consumer_that_hears_nothing_any_more_is_replaced(alone: Scene) -> None:
    member = alone.join()
    await alone.write(events(5))
    await alone.until_taken(events(5))
    session = member.stream._session
    assert session is not None
    session._consumer._fetcher._fetch_task.cancel()
    await alone.write(events(5, first=6))
    await alone.until_taken(events(10))
    assert member.stream._session is not session


async def test_records_that_cannot_be_read_are_skipped_with_one_warning(
    alone: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    negative = kit.event(7).model_dump_json(by_alias=True).replace('"inputTokens":7', '"inputTokens":-7').encode()
    await alone.write(events(2), b"{", b"", negative, b'{"idempotencyKey": "x"}', b"\xff\x00")
    await alone.write(events(2, first=3))
    alone.join()
    await alone.until_taken(events(4))
    await alone.until(lambda: alone.positions() == {0: 9})
    assert len(alone.taken()) == 4
    assert [record.getMessage()[:36] for record in caplog.records if "skipped" in record.getMessage()] == [
        "usage.events.v1: skipped 1 record(s)"
    ]


async def test_a_topic_that_holds_only_what_cannot_be_read_is_gone_over(alone: Scene) -> None:
    await alone.write((), b"{", b"[]", b"null")
    alone.join()
    await alone.until(lambda: alone.positions() == {0: 3})


async def test_holes_in_the_offsets_are_gone_over(alone: Scene) -> None:
    """Each transaction ends with a marker that takes an offset and gives no record."""
    name = alone.where.name(TOPIC)
    producer = AIOKafkaProducer(bootstrap_servers=alone.where.bootstrap, transactional_id=alone.where.name("tx"))
    await producer.start()
    try:
        for number in (1, 2, 3):
            async with producer.transaction():
                value = kit.event(number).model_dump_json(by_alias=True).encode()
                await producer.send_and_wait(name, value, key=b"k")
    finally:
        await producer.stop()
    alone.join()
    await alone.until(lambda: alone.positions() == {0: 6})
    assert sorted(alone.taken()) == [kit.event(number).idempotency_key for number in (1, 2, 3)]


async def delete_before(where: Kafka, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=where.bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(where.name(TOPIC), 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def test_without_a_position_intake_begins_where_the_log_starts(
    alone: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await alone.write(events(10))
    await delete_before(alone.where, 6)
    alone.join()
    await alone.until(lambda: alone.positions() == {0: 10})
    assert len(alone.taken()) == 4
    assert errors(caplog) == []


async def test_a_position_that_the_log_no_longer_has_is_said_loudly_and_gone_on_from(
    alone: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await alone.write(events(10))
    alone.place(3)
    await delete_before(alone.where, 6)
    alone.join()
    await alone.until(lambda: alone.positions() == {0: 10})
    assert sorted(alone.taken()) == [event.idempotency_key for event in events(10)[6:]]
    (said,) = errors(caplog)
    assert said.startswith("usage.events.v1/0: the topic no longer has offsets 3 to 5, which were not taken in")


async def test_a_topic_that_was_made_anew_is_read_from_its_start_and_nothing_is_delivered_twice(
    alone: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    before = events(6)
    await alone.write(before[:3])
    first = alone.join()
    await alone.until_taken(before[:3])
    await first.stop()
    alone.database.write_now(
        lambda connection: connection.execute(tables.WEBHOOK_POSITION.update().values(next_offset=500))
    )
    await alone.write(before[3:])
    alone.join()
    await alone.until_taken(before)
    await alone.until(lambda: alone.positions() == {0: 6})
    assert set(alone.taken().values()) == {1}
    (said,) = errors(caplog)
    assert said.startswith("usage.events.v1/0: the topic ends at 6, but 500 were taken in: it was made anew")


async def test_a_topic_made_anew_under_a_running_dispatcher_is_read_from_its_start(
    alone: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await alone.write(events(50))
    alone.join()
    await alone.until_taken(events(50))
    admin = AIOKafkaAdminClient(bootstrap_servers=alone.where.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([alone.where.name(TOPIC)])
    finally:
        await admin.close()
    await recreated(alone.where)
    await alone.write(events(20, first=41))
    await alone.until_taken(events(60))
    assert set(alone.taken().values()) == {1}


async def recreated(where: Kafka) -> None:
    """Make the topic again; a broker needs a moment to let go of the old one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            with contextlib.suppress(AssertionError):
                await records.make_topics(where, partitions=1, only=[TOPIC])
                return
            await asyncio.sleep(0.1)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@contextlib.contextmanager
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Collect what intake says of Kafka."""
    lines: list[str] = []
    with caplog.at_level(logging.INFO):
        yield lines
    lines += [record.getMessage() for record in caplog.records if "webhook intake" in record.getMessage()]


async def test_an_outage_of_kafka_is_ridden_out_and_said_once_at_each_end(
    kafka_broker: Broker, postgres: Database, caplog: pytest.LogCaptureFixture
) -> None:
    where = Kafka(kafka_broker.bootstrap, "outage.")
    async with scene_on(where, postgres, 2) as scene:
        with said(caplog) as lines:
            member = scene.join()
            await scene.write(events(20))
            await scene.until_taken(events(20))
            kafka_broker.process.kill()
            await scene.until(lambda: member.stream.blocked is not None)
            await asyncio.to_thread(kafka_broker.start)
            await scene.write(events(20, first=21))
            await scene.until_taken(events(40))
            await scene.until(lambda: any("is back" in record.getMessage() for record in caplog.records))
    assert set(scene.taken().values()) == {1}
    assert [line.split(":")[0] for line in lines] == [
        "webhook intake waits for Kafka",
        "webhook intake goes on",
    ]


async def test_a_slow_partition_is_read_ahead_only_so_far(alone: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition, "READ_AHEAD", 50)
    await alone.write(events(3000))
    consumer = intake_consumer.connect(alone.where, None)
    place = TopicPartition(alone.where.name(TOPIC), 0)
    consumer.assign([place])
    await consumer.start()
    try:
        reader = partition.TopicReader(consumer, place, TOPIC, SkippedRecords(TOPIC))
        reader.hold()
        await reader.open()
        await reader.wait(2999, 10)
        assert len(reader._held) == 50
        batch = await reader.read(0, 10)
        assert len(batch.events) == 10
    finally:
        await consumer.stop()


async def test_a_bug_in_a_follower_ends_the_stream(kafka: Kafka) -> None:
    async def broken(_partition: object) -> None:
        raise ValueError("a bug")

    await records.make_topics(kafka, partitions=2, only=[TOPIC])
    with pytest.raises(ValueError, match="a bug"):
        await asyncio.wait_for(IntakeConsumer(kafka, broken).run(), PATIENCE_S)
