"""Follows a topic from its beginning: all partitions, without a consumer group (counting 8).

Never loses its place: a consumer that is replaced goes on after the last records that were handed over.

What aiokafka 0.14 does, and is guarded against here: the task that fetches may end silently, after which a
consumer hears nothing for ever (aiokafka issue 983); a consumer only ever asks the brokers it knew (issue 459); `stop`
raises what its fetching task died of, and leaves its connections open then.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from runtime import loops
from runtime.kafka import consumers, outages, writer
from runtime.kafka.writer import Kafka, KafkaAwayError
from runtime.outage import Pause
from runtime.turns import Turns

SILENCE_S = 10.0
"""A consumer that heard nothing for so long is replaced; whoever is heard oftener than that is alive."""

BATCH = 1000
"""The most records handed over at once: the event loop of a proxy waits meanwhile."""

_POLL_MS = 1000
_ANSWER_S = 10.0
_METADATA_AGE_S = 10.0
_FETCH_BYTES = 4 * 1024 * 1024
_SAY_EVERY_S = 60.0

log = logging.getLogger(__name__)


class FeedRecord(NamedTuple):
    """One record of a topic; `value` None is a tombstone."""

    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    partition: int = 0
    offset: int = 0

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return f"partition {self.partition}, offset {self.offset}"


OnRecords = Callable[[Sequence[FeedRecord]], None]
"""Takes records in the order of their partitions, at most BATCH at once. What it raises ends the feed."""


class FeedConsumer(Protocol):
    """What a feed needs of a consumer of aiokafka's."""

    async def start(self) -> None:
        """Connect."""

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """Return the partitions; None where there is no such topic."""

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Follow these."""

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at an offset, from the beginning where there is no such offset."""

    async def end_offsets(self, partitions: list[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return what the next record of each will get."""

    async def getmany(
        self, *, timeout_ms: int, max_records: int | None
    ) -> Mapping[TopicPartition, Sequence[Any]]:  # aiokafka's ConsumerRecord
        """Return what there is, after the timeout nothing."""

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset that is read next."""

    def highwater(self, partition: TopicPartition) -> int | None:
        """Return the end of a partition, as the last answer of its leader said it; None before the first."""

    async def stop(self) -> None:
        """Let go of the connections."""


def connect(where: Kafka) -> FeedConsumer:
    """Make a consumer without a group."""
    writer.hush()
    consumer: FeedConsumer = consumers.Consumer(
        where,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # also where the topic was made anew and is shorter than our place in it
        request_timeout_ms=int(writer.REQUEST_TIMEOUT_S * 1000),
        metadata_max_age_ms=int(_METADATA_AGE_S * 1000),
        max_partition_fetch_bytes=_FETCH_BYTES,
    )
    return consumer


class Feed:
    """Hands over every record of `topic`; a consumer that hears nothing for `silence_s` is replaced.

    `from_end`: each consumer begins at the ends instead, so what was written while there was none is not heard.
    `on_ends` is called each time the ends are reached that the topic had when it began to be read from its beginning.
    """

    def __init__(
        self,
        where: Kafka,
        topic: str,
        on_records: OnRecords,
        *,
        on_ends: Callable[[], None] = lambda: None,
        from_end: bool = False,
        silence_s: float = SILENCE_S,
        steady: Callable[[], float] = time.monotonic,
        pause: Pause = asyncio.sleep,
        connect: Callable[[Kafka], FeedConsumer] = connect,
    ) -> None:
        self.heard_at = steady()
        """When something was heard last, in seconds of `steady`; at first when this was made."""
        self._where = where
        self._topic = topic
        self._on_records = on_records
        self._on_ends = on_ends
        self._from_end = from_end
        self._silence_s = silence_s
        self._steady = steady
        self._connect = connect
        self._outage = outages.outage(f"the reader of {topic}", log, pause)
        self._consumer: FeedConsumer | None = None
        self._opened_at = 0.0
        self._places: list[TopicPartition] = []
        self._read_to: dict[int, int] = {}
        """What the consumer gives next, by partition; `_positions` once its records are handed over."""
        self._positions: dict[int, int] = {}
        self._heard_ends: dict[int, int] = {}
        self._from_beginning = True
        self._ends: dict[int, int] | None = None
        self._caught_up = asyncio.Event()
        self._turns = Turns()

    @property
    def is_caught_up(self) -> bool:
        """Whether the ends that the topic had at start have been read. Once true, it stays true."""
        return self._caught_up.is_set()

    async def caught_up(self) -> None:
        """Return when the ends that the topic had at start have been read. Waits as long as Kafka is away."""
        await self._caught_up.wait()

    def reload(self) -> None:
        """Read everything once more, from the topic's beginning. Called on the event loop."""
        self._from_beginning = True
        self._ends = None

    def heard_end(self, partition: int) -> int:
        """Return the end of a partition when its last records were fetched; what was there before lies below it."""
        return self._heard_ends[partition]

    async def run(self) -> None:
        """Follow until cancelled. An outage of Kafka is waited out; what a receiver raises ends it."""
        try:
            while True:
                if self._from_beginning:
                    await self._drop()
                    self._positions, self._ends, self._from_beginning = {}, {}, False
                records = await self._outage.ride_out(self._read)
                self._hand_over(records)
                loops.turned(len(records), rest_s=_ANSWER_S, waits_for="records")
                if self._steady() - max(self.heard_at, self._opened_at) >= self._silence_s:
                    await self._drop()
                if records:  # what is buffered comes without waiting; for none there was a wait
                    await self._turns.take()
        finally:
            await self._drop()

    def _hand_over(self, records: Sequence[FeedRecord]) -> None:
        self._positions = self._read_to
        if records:
            self.heard_at = self._steady()
            self._on_records(records)
        ends = self._ends
        if ends is not None and all(self._positions[partition] >= end for partition, end in ends.items()):
            self._ends = None
            self._caught_up.set()
            self._on_ends()

    async def _read(self) -> list[FeedRecord]:
        """Return what there is, nothing after a while. Raise KafkaAwayError, then the next call begins anew."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                consumer = self._consumer or await self._open()
                batches = await consumer.getmany(timeout_ms=_POLL_MS, max_records=BATCH)
                self._read_to = {place.partition: await consumer.position(place) for place in self._places}
                ends = {place.partition: consumer.highwater(place) for place in batches}
                self._heard_ends |= {partition: end for partition, end in ends.items() if end is not None}
        except (KafkaError, KafkaAwayError, OSError, TimeoutError) as error:
            await self._drop()
            raise _away(error) from error
        return [
            FeedRecord(record.key or b"", record.value, record.headers, place.partition, record.offset)
            for place, batch in batches.items()
            for record in batch
        ]

    async def _open(self) -> FeedConsumer:
        consumer = self._consumer = self._connect(self._where)
        self._opened_at = self._steady()
        self._places = await _start(consumer, self._where.name(self._topic))
        consumer.assign(self._places)
        for place in self._places:
            if place.partition in self._positions:
                consumer.seek(place, self._positions[place.partition])
        if self._from_end:
            for place, end in (await consumer.end_offsets(self._places)).items():
                consumer.seek(place, end)
        if self._ends is not None:
            ends = await consumer.end_offsets(self._places)
            self._ends = {place.partition: end for place, end in ends.items()}
        return consumer

    async def _drop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumers.stop(consumer)


class SkippedRecords:
    """Skips records that cannot be read or applied, and says so: the first at once, the others once a minute."""

    def __init__(
        self, topic: str, steady: Callable[[], float] = time.monotonic, what: str = "record(s) that cannot be used"
    ) -> None:
        self.count = 0  # since the process began
        self._topic, self._what = topic, what
        self._steady = steady
        self._unsaid = 0
        self._said_at: float | None = None

    def skip(self, place: str, error: Exception) -> None:
        """Count one, at `place`. Its content is not logged: it may hold what was sealed."""
        now = self._steady()
        self.count += 1
        self._unsaid += 1
        if self._said_at is None or now - self._said_at >= _SAY_EVERY_S:
            text = "%s: skipped %d %s, the last at %s: %s"
            log.warning(text, self._topic, self._unsaid, self._what, place, type(error).__name__)
            self._unsaid, self._said_at = 0, now


async def ends(where: Kafka, topic: str, connect: Callable[[Kafka], FeedConsumer] = connect) -> dict[int, int]:
    """Return what the next record of each partition will get as its offset. Raise KafkaAwayError."""
    consumer = connect(where)
    try:
        async with asyncio.timeout(_ANSWER_S):
            found = await consumer.end_offsets(await _start(consumer, where.name(topic)))
            return {place.partition: end for place, end in found.items()}
    except (KafkaError, OSError, TimeoutError) as error:
        raise _away(error) from error
    finally:
        await consumers.stop(consumer)


async def _start(consumer: FeedConsumer, name: str) -> list[TopicPartition]:
    """Connect; return the topic's partitions, at least one. Raise KafkaAwayError where there is no such topic."""
    consumer.assign([TopicPartition(name, 0)])  # so that it asks for this topic, and waits for the answer
    with suppress(UnknownTopicOrPartitionError):
        await consumer.start()
        if partitions := consumer.partitions_for_topic(name):  # none would be read to their ends at once
            return [TopicPartition(name, partition) for partition in sorted(partitions)]
    raise KafkaAwayError(f"the topic {name} is not there: run `tollgate migrate`")


def _away(error: Exception) -> KafkaAwayError:
    return KafkaAwayError(str(error) or f"no answer within {_ANSWER_S:g} s")
