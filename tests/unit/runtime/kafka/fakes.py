"""A Kafka in memory as a feed sees it, and time that is moved by hand."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, UnknownTopicOrPartitionError

from runtime.kafka.writer import Kafka, KafkaRecord


class Stored(NamedTuple):
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    offset: int


class HandTime:
    """Seconds that pass only while somebody waits, each wait at once, and not while a thread is `busy`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.busy = 0

    def __call__(self) -> float:
        return self.now

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(0)
        while self.busy:  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # the thread's own end wakes whoever waits for it
        self.now += seconds


@dataclass
class Broker:
    """One topic; `is_away` refuses connections, `is_mute` lets those there are hear nothing for ever."""

    time: HandTime
    partitions: list[list[Stored]] = field(default_factory=lambda: [[]])
    firsts: dict[int, int] = field(default_factory=dict)
    """What is left of a partition begins here, 0 where not said."""
    is_away: bool = False
    is_missing: bool = False
    fails_to_stop: bool = False
    consumers: list["FakeConsumer"] = field(default_factory=list)

    def connect(self, _: Kafka) -> "FakeConsumer":
        consumer = FakeConsumer(self)
        self.consumers.append(consumer)
        return consumer

    def put(self, *records: KafkaRecord, partition: int = 0) -> None:
        log = self.partitions[partition]
        for record in records:
            log.append(Stored(record.key, record.value, record.headers, len(log)))


class FakeConsumer:
    def __init__(self, broker: Broker) -> None:
        self.is_mute = False
        self.is_running = False
        self.seeks: dict[int, int] = {}
        self._broker = broker
        self._positions: dict[TopicPartition, int] = {}

    async def start(self) -> None:
        await asyncio.sleep(0)
        if self._broker.is_away:
            raise KafkaConnectionError("nobody there")
        if self._broker.is_missing:
            raise UnknownTopicOrPartitionError
        self.is_running = True

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(len(self._broker.partitions)))

    def assign(self, partitions: list[TopicPartition]) -> None:
        firsts = self._broker.firsts
        self._positions = {place: firsts.get(place.partition, 0) for place in partitions}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.seeks[partition.partition] = offset
        self._positions[partition] = offset

    async def end_offsets(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        return {place: len(self._broker.partitions[place.partition]) for place in partitions}

    async def getmany(self, *, timeout_ms: int, max_records: int | None) -> Mapping[TopicPartition, list[Stored]]:
        await asyncio.sleep(0)
        found: dict[TopicPartition, list[Stored]] = {}
        if not self.is_mute and not self._broker.is_away:
            for place, position in self._positions.items():
                rows = self._broker.partitions[place.partition][position:][:max_records]
                if rows:
                    self._positions[place] = position + len(rows)
                    found[place] = [row for row in rows if row.key != b"compacted away"]
        if not found:
            await self._broker.time.pause(timeout_ms / 1000)
        return found

    def highwater(self, partition: TopicPartition) -> int | None:
        return len(self._broker.partitions[partition.partition])

    async def position(self, partition: TopicPartition) -> int:
        return self._positions[partition]

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.is_running = False
        if self._broker.fails_to_stop:
            raise asyncio.CancelledError
