"""A topic's logs, seen from outside by a connection of their own: where they begin and end, and what they hold.

It joins no consumer group, and shares nothing with the stream that it is compared with (counting 4).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from runtime.kafka import consumers, writer
from runtime.kafka.writer import Kafka, KafkaAwayError

_ANSWER_S = 10.0
_SILENCE_S = 30.0
_RECORDS = 500
_POLL_MS = 1000


class LogBounds(NamedTuple):
    """The first offset that a log still holds, and the one that its next record will get."""

    begin: int
    end: int


class First(NamedTuple):
    """Where a record stands, and when it was written."""

    offset: int
    at: datetime


class LogReader:
    """The logs of one topic. Connects on first use, and anew after Kafka was away. `until` is for one caller alone."""

    def __init__(self, where: Kafka, topic: str) -> None:
        self._where = where
        self._name = where.name(topic)
        self._consumer: AIOKafkaConsumer | None = None
        self._asking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def bounds(self) -> Mapping[int, LogBounds]:
        """Return the bounds of every partition. Raise KafkaAwayError."""
        async with self._asking:
            return await self._bounds()

    async def exists(self) -> bool:
        """Tell whether there is such a topic. Raise KafkaAwayError."""
        async with self._asking, self._guarded(), asyncio.timeout(_ANSWER_S):
            return self._name in await (self._consumer or await self._connected()).topics()

    async def first_since(self, moment: datetime) -> Mapping[int, First]:
        """Return the first record written at or after `moment` of each partition that has one. Raise KafkaAwayError."""
        async with self._guarded(), asyncio.timeout(_ANSWER_S):
            consumer = self._consumer or await self._connect()
            places = [TopicPartition(self._name, one) for one in consumer.partitions_for_topic(self._name) or ()]
            found = await consumer.offsets_for_times(dict.fromkeys(places, int(moment.timestamp() * 1000)))
        return {
            place.partition: First(first.offset, datetime.fromtimestamp(first.timestamp / 1000, UTC))
            for place, first in found.items()
            if first is not None
        }

    async def until(self, bounds: Mapping[int, LogBounds]) -> AsyncIterator[Sequence[Any]]:
        """Return the records (aiokafka's ConsumerRecord) between `bounds`, some at a time. Raise KafkaAwayError."""
        left = {TopicPartition(self._name, one): log.end for one, log in bounds.items() if log.begin < log.end}
        async with self._guarded(_SILENCE_S):
            async with asyncio.timeout(_ANSWER_S):
                consumer = self._consumer or await self._connect()
            consumer.assign(list(left))
            for place in left:
                consumer.seek(place, bounds[place.partition].begin)
            loop = asyncio.get_running_loop()
            heard_at = loop.time()
            while left:
                async with asyncio.timeout_at(heard_at + _SILENCE_S):  # a poll that brings nothing ends by itself
                    found = await consumer.getmany(*left, timeout_ms=_POLL_MS, max_records=_RECORDS)
                    ended = [place for place in left if await consumer.position(place) >= left[place]]
                for place, records in found.items():
                    yield [record for record in records if record.offset < left[place]]
                for place in ended:
                    consumer.pause(place)
                    del left[place]
                if found or ended:
                    heard_at = loop.time()

    async def close(self) -> None:
        """Let go of the connection, in bounded time."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumers.stop(consumer)

    async def _bounds(self) -> Mapping[int, LogBounds]:
        async with self._guarded(), asyncio.timeout(_ANSWER_S):
            consumer = self._consumer or await self._connect()
            await consumer._client._wait_on_metadata(self._name)  # noqa: SLF001 - what is not assigned is not known
            places = [TopicPartition(self._name, one) for one in consumer.partitions_for_topic(self._name)]
            begins, ends = await consumer.beginning_offsets(places), await consumer.end_offsets(places)
        return {place.partition: LogBounds(begins[place], ends[place]) for place in places}

    @asynccontextmanager
    async def _guarded(self, within_s: float = _ANSWER_S) -> AsyncIterator[None]:
        """Keep no connection that failed, or whose use was cut off half-way. Raise KafkaAwayError."""
        try:
            yield
        except UnknownTopicOrPartitionError:
            await self.close()
            raise KafkaAwayError(f"the topic {self._name} is not there: run `tollgate migrate`") from None
        except (KafkaError, OSError, TimeoutError) as error:
            await self.close()
            raise KafkaAwayError(str(error) or f"no answer from Kafka within {within_s:g} s") from error
        except (Exception, asyncio.CancelledError):  # not where a reader of `until` has merely enough
            await self.close()
            raise

    async def _connect(self) -> AIOKafkaConsumer:
        consumer = await self._connected()
        if self._name not in await consumer.topics():  # else what is asked of it would wait for it
            raise KafkaAwayError(f"the topic {self._name} is not there: run `tollgate migrate`")
        return consumer

    async def _connected(self) -> AIOKafkaConsumer:
        writer.hush()
        self._consumer = consumers.Consumer(
            self._where,
            client_id="tollgate-metering-logs",
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            request_timeout_ms=int(_ANSWER_S * 1000),
        )
        await self._consumer.start()
        return self._consumer
