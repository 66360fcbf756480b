"""Kafka as every process uses it: names, records, and a writer whose waits all end (counting 3).

Never sends a record while an earlier one of its partition is unacknowledged, and never runs two producers at once.

What aiokafka 0.14 does, and is guarded against here: an idempotent producer tries for ever while Kafka is away, and its
`stop` waits for that (aiokafka issue 1101, open); cancelling a send does not cancel its delivery; it only ever asks the
brokers it knew (issues 456 and 459), so one that hears nothing is replaced; after a failed batch its sequence numbers
no longer fit; and it logs several lines for every try.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, NamedTuple

from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError, UnknownTopicOrPartitionError
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder

from runtime.kafka import clients
from schemas.base import rfc3339

Kafka = clients.Kafka

MAX_BATCH_BYTES = 1_000_000
"""The most that one record, and one batch, may take: a topic's own bound is 1,048,588 unless it was changed."""

UNKNOWN = -1
"""In place of an offset."""

REQUEST_TIMEOUT_S = 5.0
"""How long one request to a broker may take; a write may try several times."""

_METADATA_AGE_S = 60.0
_CLOSE_WITHIN_S = 15.0

log = logging.getLogger(__name__)


class KafkaAwayError(Exception):
    """Kafka did not take it in time; the same call may succeed later."""


class RecordTooLargeError(ValueError):
    """Kafka will never take this record."""


Headers = Sequence[tuple[str, bytes]]


class KafkaRecord(NamedTuple):
    """One record to write; `value` None is a tombstone."""

    key: bytes
    value: bytes | None
    headers: Headers = ()


PlainRecord = tuple[bytes, bytes | None, Headers]
"""The same without names, for those who make very many: the garbage collector keeps looking at named ones."""


@lru_cache(maxsize=1 << 17)
def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key as Kafka's own clients do: murmur2."""
    return int(murmur2(key) & 0x7FFFFFFF) % partitions


def cloud_events(type_: str, source: str) -> Callable[[bytes, bytes], Headers]:
    """Make what gives the headers of a CloudEvent in binary mode (contract 4) from its id and its RFC 3339 time."""
    always = ("ce_type", type_.encode()), ("ce_source", source.encode()), ("ce_specversion", b"1.0")

    def headers(id_: bytes, at: bytes) -> Headers:
        return [("ce_id", id_), ("ce_time", at), *always]

    return headers


def cloud_event(type_: str, id_: str, source: str, at: datetime) -> Headers:
    """Return the headers of one CloudEvent."""
    return cloud_events(type_, source)(id_.encode(), rfc3339(at).encode())


def hush() -> None:
    """Keep aiokafka from logging several lines for each try of an outage: whoever waits says so once, in its words."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def let_begin(client: Any) -> None:
    """Have an aiokafka client's first connection come to its end though whoever waited for it is gone.

    Cut off, it would stay open; `client.close` waits for it.
    """
    bootstrap, close = client.bootstrap, client.close
    begun: list[asyncio.Task[None]] = []

    async def begin() -> None:
        begun.append(asyncio.create_task(bootstrap()))
        await asyncio.shield(begun[-1])

    async def end() -> None:
        if begun:
            await asyncio.wait(begun, timeout=REQUEST_TIMEOUT_S)
        for task in begun:
            if not task.cancel() and not task.cancelled():
                task.exception()  # whoever waited for it has seen it, or is gone
        await close()

    client.bootstrap, client.close = begin, end


class Writer:
    """Writes records to any topics; `what` names the writer to the broker and in errors.

    Any number of calls at once: a partition's pass one at a time, partitions go side by side. They pass in the order of
    the calls, except for calls to several partitions and to one that are made in the same turn of the loop.
    When one fails, those that already wait behind it on the same partition fail too: theirs must not come before its.
    """

    def __init__(self, kafka: Kafka, what: str) -> None:
        self._kafka = kafka
        self._what = what
        self._lanes: defaultdict[_Partition, _Lane] = defaultdict(_Lane)
        self._entering: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """By topic; held by a call until it has its place on each partition."""
        self._connecting = asyncio.Lock()
        self._connection: _Connection | None = None
        self._ending: asyncio.Task[None] | None = None

    async def partitions(self, topic: str, within_s: float = 10.0) -> int:
        """Return how many partitions a topic has. Raise KafkaAwayError."""
        async with self._bounded(topic, within_s):
            return await self._partitions(self._kafka.name(topic))

    async def write(self, topic: str, records: Sequence[PlainRecord], within_s: float = 10.0) -> None:
        """Return when the broker has all records, on as many replicas as the topic asks.

        Raise KafkaAwayError when that is not so in time: any of them may be there, or may still come, so the caller
        writes them again, in the same order. Raise RecordTooLargeError before anything was sent.
        """
        if not records:
            return
        async with self._bounded(topic, within_s):
            name = self._kafka.name(topic)
            async with self._entering[name]:  # a later call may find at once what an earlier one had to wait for
                partitions = await self._partitions(name)
                alike: defaultdict[int, list[PlainRecord]] = defaultdict(list)
                for record in records:
                    alike[partition_of(record[0], partitions)].append(record)
                build = (await self._connected()).batches
                built = {partition: build(name, some) for partition, some in alike.items()}
                sends = [self._send((name, partition), batches) for partition, batches in built.items()]
                together = asyncio.gather(*sends, return_exceptions=True) if len(sends) > 1 else None
            if together is None:  # a task costs as much as twenty records
                await sends[0]
                return
            for result in await together:
                if isinstance(result, BaseException):
                    raise result

    async def write_to(
        self, topic: str, partition: int, records: Sequence[PlainRecord], within_s: float = 10.0
    ) -> list[int]:
        """Write to one partition; return each record's offset, UNKNOWN where the broker had it from an earlier try."""
        if not records:
            return []
        async with self._bounded(topic, within_s):
            name = self._kafka.name(topic)
            async with self._entering[name]:
                send = self._send((name, partition), (await self._connected()).batches(name, records))
            return await send

    async def close(self) -> None:
        """Let go of the connections; a later write opens new ones. What is not acknowledged yet may be there or not."""
        if self._connection is not None:
            self._retire(self._connection)
        if self._ending is not None:
            await asyncio.wait({self._ending}, timeout=_CLOSE_WITHIN_S)
            self._ending.cancel()
            await asyncio.wait({self._ending}, timeout=_CLOSE_WITHIN_S)

    @asynccontextmanager
    async def _bounded(self, topic: str, within_s: float) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(within_s):
                yield
        except TimeoutError:
            if self._connection is not None and self._connection.heard_at < began:
                self._retire(self._connection)  # it may be asking brokers that are no more
            raise KafkaAwayError(f"{self._what}: no answer from Kafka about {topic} within {within_s:g} s") from None
        except (KafkaError, OSError) as error:
            raise KafkaAwayError(f"{self._what}: {error}") from error

    async def _partitions(self, name: str) -> int:
        connection = await self._connected()
        try:
            return len(await connection.producer.partitions_for(name))
        except UnknownTopicOrPartitionError:
            raise KafkaAwayError(f"{self._what}: the topic {name} is not there: run `tollgate migrate`") from None

    async def _send(self, place: "_Partition", batches: list[BatchBuilder]) -> list[int]:
        lane = self._lanes[place]
        failures = lane.failures
        async with lane.lock:
            if lane.failures != failures:
                raise KafkaAwayError(f"{self._what}: the write before it failed")
            try:
                connection = await self._connected()
                try:
                    return await connection.send(place, batches)
                except (KafkaError, OSError) as error:
                    self._retire(connection)
                    if isinstance(error, MessageSizeTooLargeError):
                        raise RecordTooLargeError(
                            f"{place[0]} takes no batch of {MAX_BATCH_BYTES} bytes: raise its max.message.bytes"
                        ) from None
                    raise
            except BaseException:
                lane.failures += 1
                raise

    async def _connected(self) -> "_Connection":
        if self._connection is not None:
            return self._connection
        async with self._connecting:
            if self._connection is None:
                if self._ending is not None:  # a producer that is not gone might still send
                    await asyncio.wait({self._ending})
                    self._ending = None
                connection = _Connection(self._kafka, self._what)
                try:
                    await connection.producer.start()
                except BaseException:
                    self._retire(connection)
                    raise
                self._connection = connection
            return self._connection

    def _retire(self, connection: "_Connection") -> None:
        if connection.ended.done():
            return
        connection.ended.set_result(None)
        if self._connection is connection:
            self._connection = None
        self._ending = asyncio.create_task(connection.end())
        text = "%s: the producer before has not ended within %g s; nothing is written until it has"
        late = asyncio.get_running_loop().call_later(_CLOSE_WITHIN_S, log.error, text, self._what, _CLOSE_WITHIN_S)
        self._ending.add_done_callback(partial(_ended, late))


def _ended(late: asyncio.TimerHandle, ending: asyncio.Task[None]) -> None:
    late.cancel()
    if not ending.cancelled() and (error := ending.exception()) is not None:
        log.error("a producer's connections failed while they were closed", exc_info=error)


_Partition = tuple[str, int]
"""A topic's real name and a partition."""


@dataclass(slots=True)
class _Lane:
    """One partition: whose turn it is, and how many writes have failed."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    failures: int = 0


class _Connection:
    """One producer, from its start to its end."""

    def __init__(self, kafka: Kafka, what: str) -> None:
        hush()
        loop = asyncio.get_running_loop()
        self.producer = clients.producer(
            kafka,
            client_id=what,
            acks="all",
            enable_idempotence=True,
            max_batch_size=MAX_BATCH_BYTES,
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
            metadata_max_age_ms=int(_METADATA_AGE_S * 1000),
        )
        let_begin(self.producer.client)
        self.heard_at = loop.time()
        """When the broker acknowledged something, in the loop's time."""
        self.ended: asyncio.Future[None] = loop.create_future()
        self._sent: dict[_Partition, asyncio.Future[Any]] = {}

    def batches(self, name: str, records: Sequence[PlainRecord]) -> list[BatchBuilder]:
        """Build the batches of one partition. Raise RecordTooLargeError."""
        at_ms = int(time.time() * 1000)  # the topics keep the broker's time, not this
        built, append = list[BatchBuilder](), None
        for key, value, header_items in records:
            headers = header_items if type(header_items) is list else list(header_items)  # aiokafka takes no other
            if append is None or append(timestamp=at_ms, key=key, value=value, headers=headers) is None:
                batch = self.producer.create_batch()
                append = batch.append
                append(timestamp=at_ms, key=key, value=value, headers=headers)
                if batch.size() > MAX_BATCH_BYTES:  # an empty batch takes a record of any size
                    raise RecordTooLargeError(f"a record for {name} takes {batch.size()} bytes, over {MAX_BATCH_BYTES}")
                built.append(batch)
        return built

    async def send(self, place: _Partition, batches: list[BatchBuilder]) -> list[int]:
        """Send to one partition; return each record's offset when all are acknowledged. Raise KafkaError."""
        if place in self._sent:  # where a write gave up on it, it is still on its way
            await self._acknowledged(self._sent[place])
        topic, partition = place
        offsets: list[int] = []
        for batch in batches:
            count = batch.record_count()
            sent = await self.producer.send_batch(batch, topic, partition=partition)
            sent.add_done_callback(self._hear)
            self._sent[place] = sent
            await self._acknowledged(sent)
            first = sent.result().offset
            offsets += [UNKNOWN] * count if first < 0 else range(first, first + count)
        return offsets

    async def end(self) -> None:
        """Stop at once. The producer's own `stop` would first bring what is left to a Kafka that may be away."""
        producer = self.producer
        try:
            await producer._sender.close()  # noqa: SLF001 - ends requests under way, which end by their timeout
        except Exception:
            log.exception("a producer failed while it was stopped")
        finally:
            producer._closed = True  # noqa: SLF001 - its finalizer asks
            await producer.client.close()

    async def _acknowledged(self, sent: asyncio.Future[Any]) -> None:
        if not sent.done():
            await asyncio.wait((sent, self.ended), return_when=asyncio.FIRST_COMPLETED)  # cancels neither
            if not sent.done():
                raise KafkaConnectionError("the producer was replaced")
        sent.result()

    def _hear(self, sent: asyncio.Future[Any]) -> None:
        """Note when something was acknowledged, and look at an error that nobody may wait for any more."""
        if not sent.cancelled() and sent.exception() is None:
            self.heard_at = sent.get_loop().time()
