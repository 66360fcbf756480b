"""No client of ours creates a topic by looking at it, on a broker that creates what it is asked about (its default)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest

from domain.positions import Start
from metering.topic.faust_consumer import Fetch, Fetches
from runtime.kafka import consumers, feed, topics
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from schemas.topics import USAGE_EVENTS
from tests.support import records
from webhooks.topic import consumer as intake_consumer

WITHIN_S = 60
_LOOK_EVERY_S = 0.1  # nobody tells when a broker has made a topic


class Nothing:
    """A source of positions that is never asked: there is no partition to read."""

    async def starts(self, partitions: Sequence[int]) -> Mapping[int, Start]:
        raise AssertionError(partitions)

    async def skipped(self, partition: int, first: int, next_offset: int) -> None:
        raise AssertionError(partition)


async def admin(where: Kafka) -> None:
    await topics.ensure(where, records.plans(), create=False)


async def producer(where: Kafka) -> None:
    writer = Writer(where, "test")
    try:
        await writer.write(USAGE_EVENTS, [KafkaRecord(b"key", b"value")], within_s=WITHIN_S)
    finally:
        await writer.close()


async def consumer_of_a_feed(where: Kafka) -> None:
    await feed.ends(where, USAGE_EVENTS)


async def consumer_in_a_group(where: Kafka) -> None:
    consumer = intake_consumer.connect(where, where.name("group"))
    consumer.subscribe([where.name(USAGE_EVENTS)])
    try:
        await consumer.start()
        await consumer.getmany(timeout_ms=WITHIN_S * 1000)
    finally:
        await consumers.stop(consumer)


async def consumer_of_faust(where: Kafka) -> None:
    async def take(fetches: Sequence[Fetch]) -> None:
        raise AssertionError(fetches)

    fetches = Fetches(where, USAGE_EVENTS, "group", Nothing(), take)
    try:
        await fetches.start()
        await fetches.ended()
    finally:
        await fetches.stop()


@pytest.fixture
async def answered(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a broker has answered a question about the topic, whatever client and thread asked."""
    event, send, loop = asyncio.Event(), AIOKafkaConnection.send, asyncio.get_running_loop()

    async def noted(answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        finally:
            loop.call_soon_threadsafe(event.set)

    def recorded(connection: AIOKafkaConnection, request: Any, **options: Any) -> Any:
        answer = send(connection, request, **options)
        asks = isinstance(request, MetadataRequest) and kafka.name(USAGE_EVENTS) in (request._topics or ())
        return noted(answer) if asks else answer

    monkeypatch.setattr(AIOKafkaConnection, "send", recorded)
    return event


@pytest.mark.parametrize("look", [admin, producer, consumer_of_a_feed, consumer_in_a_group, consumer_of_faust])
async def test_a_client_creates_no_topic_by_looking_at_it(
    kafka: Kafka, answered: asyncio.Event, look: Callable[[Kafka], Awaitable[None]]
) -> None:
    async with asyncio.timeout(WITHIN_S):
        looking = asyncio.ensure_future(look(kafka))
        await answered.wait()

        assert await created_by_a_stock_client(kafka, kafka.name("looked-at-later")) == [kafka.name("looked-at-later")]

        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


async def created_by_a_stock_client(where: Kafka, topic: str) -> list[str]:
    """Look at a topic with aiokafka as it is, until that has made it; return all topics with this test's prefix."""
    client = AIOKafkaAdminClient(bootstrap_servers=where.bootstrap)
    await client.start()
    try:
        while topic not in (there := [name for name in await client.list_topics() if name.startswith(where.prefix)]):
            await client.describe_topics([topic])
            await asyncio.sleep(_LOOK_EVERY_S)
        return there
    finally:
        await client.close()
