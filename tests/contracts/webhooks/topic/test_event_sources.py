"""What every `EventSource` that intake follows keeps to: the live fake, the proxy's spool, and Kafka's."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from domain.sources import EventSource
from proxy.spool import writer
from runtime.kafka.feed import SkippedRecords
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from runtime.settings import SpoolSync
from schemas import topics
from schemas.usage import UsageDraft, UsageEvent
from tests.integration.webhooks.scene import LivePartition
from tests.support import records
from tests.unit.webhooks import kit
from webhooks.topic import consumer as intake_consumer
from webhooks.topic.partition import TopicReader

Put = Callable[[UsageEvent], Awaitable[object]]
Made = tuple[EventSource, Put]


@contextlib.asynccontextmanager
async def live(_folder: Path) -> AsyncIterator[Made]:
    partition = LivePartition()
    yield partition, partition.put


@contextlib.asynccontextmanager
async def spooled(folder: Path) -> AsyncIterator[Made]:
    opened, _ = writer.open_folder(folder, sync=SpoolSync.NORMAL, max_bytes=10_000_000)
    try:
        yield opened.file, lambda event: opened.put(UsageDraft.model_validate(event.model_dump(exclude={"producer"})))
    finally:
        opened.close()


@contextlib.asynccontextmanager
async def in_kafka(where: Kafka) -> AsyncIterator[Made]:
    await records.make_topics(where, partitions=1, only=[topics.USAGE_EVENTS])
    writer, consumer = Writer(where, "test"), intake_consumer.connect(where, None)
    place = TopicPartition(where.name(topics.USAGE_EVENTS), 0)

    async def put(event: UsageEvent) -> None:
        value = event.model_dump_json(by_alias=True).encode()
        await writer.write(topics.USAGE_EVENTS, [KafkaRecord(b"group", value)])

    await put(kit.event(99))  # every partition of this suite begins at 1
    consumer.assign([place])
    await consumer.start()
    try:
        reader = TopicReader(consumer, place, topics.USAGE_EVENTS, SkippedRecords(topics.USAGE_EVENTS))
        reader.hold()
        await reader.open()
        assert reader.first_offset == 0
        reader.first_offset = 1
        yield reader, put
    finally:
        await consumer.stop()
        await writer.close()


@pytest.fixture(params=["live", "spooled", "kafka"])
async def made(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Made]:
    if request.param == "kafka":
        opened = in_kafka(request.getfixturevalue("kafka"))
    else:
        opened = live(tmp_path) if request.param == "live" else spooled(tmp_path)
    async with opened as partition_and_put:
        yield partition_and_put


async def fetched(partition: EventSource, offset: int) -> None:
    """Let what is there be fetched: `read` gives at once what is at hand."""
    await asyncio.wait_for(partition.wait(offset, 60), 10)


async def test_events_are_read_in_order_from_any_offset_and_again(made: Made) -> None:
    partition, put = made
    for number in range(1, 6):
        await put(kit.event(number))
    for _ in range(2):
        await partition.read(2, 3)
        await fetched(partition, 4)
        batch = await partition.read(2, 3)
        assert (batch.topic, batch.partition) == (partition.topic, partition.index)
        assert (batch.first_offset, batch.next_offset) == (2, 5)
        assert [event.tokens.input_tokens for event in batch.events] == [2, 3, 4]


async def test_nothing_there_is_an_empty_batch_at_once(made: Made) -> None:
    partition, put = made
    batch = await partition.read(partition.first_offset, 10)
    assert (batch.first_offset, batch.next_offset, batch.events) == (1, 1, ())
    await put(kit.event(1))
    await fetched(partition, 1)
    batch = await partition.read(2, 10)
    assert (batch.first_offset, batch.next_offset, batch.events) == (2, 2, ())


async def test_a_wait_ends_when_its_event_is_there_or_its_time_is_over(made: Made) -> None:
    partition, put = made
    await partition.wait(1, 0.01)
    waiting = asyncio.create_task(partition.wait(1, 60))
    await put(kit.event(1))
    await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(partition.wait(1, 60), 5)
