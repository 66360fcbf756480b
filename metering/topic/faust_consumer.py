"""Faust, set up for one topic: whole fetches instead of single records, read from where the ledger's position says.

Faust makes no topic here, commits no offset by itself, starts no server and no producer, writes no file and touches no
signal.

What Faust 0.15.3 does, and is guarded against here:

- It acknowledges what an agent failed on or was cancelled over, with `noack` too (robinhood/faust 604,
  faust-streaming 527). So its acknowledgements are off (`acks=False`); the group's offset is written by `commit`, after
  the ledger's transaction and what it names were written.
- It reads on from the group's committed offset. Here each assignment begins at the ledger's position: nothing is
  fetched from a partition before that is known, however long the database is away.
- Each record costs it five tasks and two queues (64 us of CPU); once its buffer is full it drops records
  (faust-streaming 88) or waits a second. So a fetch of many records travels as one, and `Fetches` bounds them.
- Its check for stalls only logs, and wrongly (faust-streaming 175, 640): it is off; `metering.core.stalls` is ours.
- Its consumer's thread keeps the process alive, and its end is waited for without a bound (see `faust_thread`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import faust
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError
from faust.app.base import BootStrategy
from faust.exceptions import ConsumerNotStarted
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from domain.positions import Start
from metering.topic import faust_thread
from runtime import loops
from runtime.kafka.consumers import UnreadableTopicError
from runtime.kafka.writer import Kafka

RECORDS = 1000
"""The most records of one fetch."""

AHEAD = 8 * RECORDS
"""How many records may be fetched and not yet done with."""

WITHIN_S = 0.02
"""How long a take waits for more, after its first fetch."""

_TAKE = 8
"""Fetches of one take."""

_SMALL = 100
"""Records of a fetch below which no more than one take is handed on ahead: what comes meanwhile waits in the client and
comes as fewer, larger ones. Small ones would queue up, a few each take, until they held `AHEAD` records."""

_SESSION_S = 15.0
_REQUEST_S = 20.0
_REBALANCE_S = 30.0
_POLL_INTERVAL_S = 7 * 24 * 3600.0  # while the database is away nothing is polled, and the worker stays in its group
_FETCH_BYTES = 1024 * 1024
_LOOK_S = 1.0


class Fetch(NamedTuple):
    """Consecutive records of one partition; what lies between their offsets holds no record."""

    partition: int
    first_offset: int
    """Where the fetch before ended, or the position that reading began at."""
    next_offset: int
    records: Sequence[Any]  # aiokafka's ConsumerRecord
    generation: int
    """Of the consumer group: a fetch of an earlier one is read again by whoever owns the partition now."""


class FetchSource(Protocol):
    """What reading asks of its owner."""

    async def starts(self, partitions: Sequence[int]) -> Mapping[int, Start]:
        """Say where to read these; takes as long as the database is away."""

    async def skipped(self, partition: int, first: int, next_offset: int) -> None:
        """Take note that offsets `first` up to `next_offset` (exclusive) came without a record."""


class OffsetsWentBackError(Exception):
    """The log gave offsets below those it was read from: it was made anew, or has lost records."""


@dataclass(slots=True)
class _ReadState:
    generation: int
    next_offset: int
    """What the next fetch begins with."""
    done: int
    """What lies below is counted, or was dropped."""
    in_hand: int = 0
    """Fetches that were handed on and are not done with."""


class _Consumer(driver.Consumer):
    """Return whole fetches, each partition from where the ledger's position is."""

    logger = faust_thread.FAUST_LOG

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._source: FetchSource = cast("_App", self.app).source
        self._places: dict[TP, _ReadState] = {}
        self._room = asyncio.Event()

    def _new_consumer_thread(self) -> driver.AIOKafkaConsumerThread:
        return faust_thread.of(self, _REQUEST_S)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Leave it to our own watchdog."""

    async def perform_seek(self) -> None:
        """Leave it to `getmany`, which sees the new generation: Faust gives this no longer than a request may take."""
        self._room.set()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:  # noqa: ASYNC109 - Faust's signature
        """Return what one fetch brought, as one message for each partition."""
        loops.turned(0, rest_s=timeout, waits_for="usage events")
        if not self.flow_active:
            await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # as Faust itself does
        await self._begin_assigned()
        if not await self._has_room():
            return
        records, _ = await self._wait_next_records(timeout)
        generation = self._generation
        for place, found in (records or {}).items():
            tp = TP(place.topic, place.partition)
            if self.should_stop or not self.flow_active or generation != self._generation:
                return
            at = self._places.get(tp)
            if at is not None and at.generation == generation:
                yield tp, self._message(tp, await self._fetch(tp, at, found))

    def done(self, fetch: Fetch) -> None:
        at = self._places.get(self._tp(fetch.partition))
        if at is not None and at.generation == fetch.generation:
            at.done = max(at.done, fetch.next_offset)
            at.in_hand -= 1
            self._room.set()

    def is_current(self, fetch: Fetch) -> bool:
        at = self._places.get(self._tp(fetch.partition))
        return at is not None and at.generation == fetch.generation == self._generation

    def partitions(self) -> list[int]:
        with suppress(ConsumerNotStarted):
            return sorted(tp.partition for tp in self.assignment())
        return []

    def close_loop(self) -> None:
        """Close the loop of a thread that never began, or never ended by itself."""
        loop = self._thread.thread_loop
        if not (loop.is_running() or loop.is_closed()):
            loop.close()

    async def write_offsets(self, offsets: Mapping[int, int]) -> bool:
        name = cast("_App", self.app).topic_name
        places = {TopicPartition(name, partition): offset for partition, offset in offsets.items()}
        thread = cast(faust_thread.Thread, self._thread)  # Faust's own `commit` would end the app on any error
        written: bool = await thread.call_thread(thread.write_offsets, places)
        return written

    @property
    def _generation(self) -> int:
        return self.app.consumer_generation_id

    def _tp(self, partition: int) -> TP:
        return TP(cast("_App", self.app).topic_name, partition)

    async def _begin_assigned(self) -> None:
        """Begin what was newly assigned at the ledger's position."""
        while not self.should_stop:
            generation = self._generation
            new = [
                tp
                for tp in self._get_active_partitions() & self.assignment()
                if tp not in self._places or self._places[tp].generation != generation
            ]
            if not new:
                return
            starts = await self._source.starts([tp.partition for tp in new])
            if generation != self._generation:
                continue
            with suppress(IllegalStateError):  # it was taken away meanwhile
                await self._thread.seek_wait({tp: starts[tp.partition].offset for tp in new})
                for tp in new:
                    position = starts[tp.partition].position
                    self._places[tp] = _ReadState(generation, position, position)

    async def _has_room(self) -> bool:
        """Wait while too much is fetched and not done with; False after a while, so that a rebalance is noticed."""
        current = [at for at in self._places.values() if at.generation == self._generation]
        records, fetches = sum(at.next_offset - at.done for at in current), sum(at.in_hand for at in current)
        if records < AHEAD and (fetches < _TAKE or records >= fetches * _SMALL):
            return True
        self._room.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._room.wait()
        return False

    async def _fetch(self, tp: TP, at: _ReadState, records: Sequence[Any]) -> Fetch:
        first, next_offset = at.next_offset, records[-1].offset + 1
        if records[0].offset < first:
            raise OffsetsWentBackError(f"{tp.topic}/{tp.partition} gave offset {records[0].offset} after {first - 1}")
        if next_offset - first > len(records):
            for hole in holes(first, records):
                await self._source.skipped(tp.partition, *hole)
        at.next_offset = next_offset
        at.in_hand += 1
        return Fetch(tp.partition, first, next_offset, records, at.generation)

    def _message(self, tp: TP, fetch: Fetch) -> ConsumerMessage:
        last = fetch.records[-1]
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000,
            last.timestamp_type,
            [],
            b"",
            cast(bytes, fetch),  # what Faust hands on unread
            None,
            0,
            0,
            tp,
            generation_id=fetch.generation,
        )


def holes(first: int, records: Sequence[Any]) -> Iterator[tuple[int, int]]:
    """Return the stretches of offsets from `first` on that hold none of `records`, each with its end (exclusive)."""
    for record in records:
        if record.offset > first:
            yield first, record.offset
        first = record.offset + 1


class _Transport(driver.Transport):
    Consumer = _Consumer


class _Boot(BootStrategy):
    enable_kafka_producer = False
    enable_web = False


class _App(faust.App):
    logger = faust_thread.FAUST_LOG
    BootStrategy = _Boot
    source: FetchSource
    topic_name: str

    def _new_transport(self) -> driver.Transport:
        return _Transport(self.conf.broker_consumer, self)

    def _create_directories(self) -> None:
        """Leave the disk alone: there are no tables."""


Take = Callable[[Sequence[Fetch]], Coroutine[Any, Any, None]]
"""Works on what was fetched, in the order of each partition's offsets. It may not raise."""


class Fetches:
    """A consumer group's share of `topic`, taken by one agent. Made on the event loop that it runs in, for one run."""

    def __init__(self, where: Kafka, topic: str, group: str, source: FetchSource, take: Take) -> None:
        _hush()
        self._app = _App(
            where.name(group),
            loop=asyncio.get_running_loop(),
            broker=[f"kafka://{server}" for server in where.bootstrap.split(",")],
            broker_credentials=faust_thread.credentials(where),
            store="memory://",
            autodiscover=False,
            processing_guarantee="at_least_once",
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=_FETCH_BYTES,
            broker_max_poll_records=RECORDS,
            broker_max_poll_interval=_POLL_INTERVAL_S,
            broker_session_timeout=_SESSION_S,
            broker_request_timeout=_REQUEST_S,
            broker_rebalance_timeout=_REBALANCE_S,
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
        )
        self._app.source = source
        self._app.topic_name = where.name(topic)
        raw = self._app.topic(self._app.topic_name, key_serializer="raw", value_serializer="raw", acks=False)

        async def agent(stream: Any) -> None:
            async for events in stream.take_events(_TAKE, within=WITHIN_S):
                await take([event.value for event in events])

        self._is_started = False
        self._app.agent(raw, name=group, concurrency=1)(agent)

    @property
    def _consumer(self) -> _Consumer:
        return cast(_Consumer, self._app.consumer)

    def partitions(self) -> list[int]:
        """Return the partitions that the group has assigned to this worker; none before it has joined."""
        return self._consumer.partitions() if self._is_started else []

    def is_current(self, fetch: Fetch) -> bool:
        """Tell whether the partition is still read in the same generation as when this was fetched."""
        return self._consumer.is_current(fetch)

    def done(self, fetch: Fetch) -> None:
        """Make room: a fetch was counted or dropped, and is not needed again."""
        self._consumer.done(fetch)

    async def write_offsets(self, offsets: Mapping[int, int]) -> bool:
        """Write the group's offsets; False while the group rebalances. Raise KafkaError, TimeoutError."""
        return await self._consumer.write_offsets(offsets)

    async def start(self) -> None:
        """Join the group. Raises what Kafka's client raises where it does not answer."""
        self._is_started = True
        await self._app.start()

    async def ended(self) -> None:
        """Raise what it failed with."""
        await self._app._crashed.wait()  # noqa: SLF001 - `wait_until_stopped` leaves a task behind when it is cancelled
        reason = self._app.crash_reason
        raise UnreadableTopicError(self._app.topic_name, reason) from reason

    async def stop(self) -> None:
        """Leave the group."""
        if self._is_started:
            await self._app.stop()
            self._consumer.close_loop()


def _hush() -> None:
    """Keep Faust from telling each of its steps; what it warns of is still logged."""
    for part in ("faust", "mode"):
        logging.getLogger(part).setLevel(logging.WARNING)
