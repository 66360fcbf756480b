"""Reads whole topics, as finance would: without a consumer group, from the beginning to the present end."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import ConsumerRecord

from runtime.kafka import clients, topics
from runtime.kafka.topics import Plan
from runtime.kafka.writer import Kafka
from runtime.settings import Settings

WITHIN_S = 120
Item = TypeVar("Item")


def plans(partitions: int = 4) -> tuple[Plan, ...]:
    """Return the plans for a single broker."""
    return topics.plans(Settings(kafka_partitions=partitions, kafka_replication=1, kafka_min_insync_replicas=1))


async def make_topics(where: Kafka, *, partitions: int = 4, only: Sequence[str] = ()) -> None:
    """Make the topics on a single broker."""

    wanted = [plan for plan in plans(partitions) if not only or plan.name in only]
    assert await topics.ensure(where, wanted, create=True) == []


async def compress(where: Kafka, topic: str, codec: str) -> None:
    """Have the broker write what comes to a topic with this codec, as Kafka names it."""
    admin = AIOKafkaAdminClient(**clients.options(where))
    await admin.start()
    try:
        wanted = {"compression.type": codec}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, where.name(topic), wanted)])
    finally:
        await admin.close()


@asynccontextmanager
async def _consumer(where: Kafka) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(**clients.options(where), auto_offset_reset="earliest")
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


async def read(where: Kafka, topic: str) -> dict[int, list[ConsumerRecord]]:
    """Return each partition's records, in their order."""
    async with asyncio.timeout(WITHIN_S), _consumer(where) as consumer:
        name = where.name(topic)
        await consumer._client._wait_on_metadata(name)
        places = [TopicPartition(name, number) for number in sorted(consumer.partitions_for_topic(name))]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found: dict[int, list[ConsumerRecord]] = {place.partition: [] for place in places}
        for place, end in ends.items():
            while await consumer.position(place) < end:
                for records in (await consumer.getmany(place, timeout_ms=1000)).values():
                    found[place.partition] += records
        return found


def firsts(items: Iterable[Item]) -> list[Item]:
    """Return each item where it stands first: what at-least-once looks like to one who has seen it before."""
    return list(dict.fromkeys(items))
