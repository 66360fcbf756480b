"""The usage events' topic for intake: a consumer group shares its partitions out, each followed by a task (counting 7).

Never takes a position from the group: the database has it, and nothing is committed to Kafka.

What aiokafka 0.14 does, and is guarded against here: a member that takes no records for `max_poll_interval_ms` leaves
its group and does not come back, one without partitions too (so the watch polls for it); the task that fetches may end
silently (issue 983); a consumer only ever asks the brokers it knew (issue 459); `stop` raises what its fetching
task died of; errors of a rebalance listener are logged and dropped.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, TypeVar
from weakref import WeakSet

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from domain.positions import PositionLostError
from domain.sources import EventSource
from runtime import loops
from runtime.kafka import consumers, feed, outages, writer
from runtime.kafka.writer import Kafka, KafkaAwayError
from runtime.outage import Outage, Pause
from schemas import topics
from webhooks.topic.partition import TopicReader

GROUP = "tollgate-webhooks"

WATCH_S = 5.0
"""How often a consumer is looked at. One that says nothing of records that are there, twice, is replaced."""

_ANSWER_S = 10.0
_SESSION_S = 10.0
_POLL_INTERVAL_S = 300.0
_CLOSE_S = 5.0
_METADATA_AGE_S = 30.0
_FETCH_WAIT_MS = 100  # a partition that was read to its end waits so long for the fetch under way for its neighbours
_FETCH_BYTES = 1024 * 1024  # of each partition, beside what its reader holds

_log = logging.getLogger(__name__)

Result = TypeVar("Result")
Follow = Callable[[EventSource], Awaitable[None]]


class IntakeConsumer:
    """Has `follow` follow every partition that the group gives to this process, from the database's position on."""

    def __init__(
        self,
        where: Kafka,
        follow: Follow,
        *,
        group: str = GROUP,
        watch_s: float = WATCH_S,
        pause: Pause = asyncio.sleep,
    ) -> None:
        """Those of one `group` share the partitions."""
        self._where = where
        self._follow = follow
        self._group = where.name(group)
        self._watch_s = watch_s
        self._outage = outages.outage("webhook intake", _log, pause)
        self._pause = pause
        self._unreadable = feed.SkippedRecords(topics.USAGE_EVENTS)
        self._session: _Session | None = None
        self._seen: dict[int, int] = {}
        """Where the partitions ended at the last look."""

    def lag(self, committed: Callable[[str, int], int]) -> dict[str, int]:
        """Return how many events this process's partitions hold beyond what is `committed`."""
        readers = [] if self._session is None else self._session.readers
        behind = {one.index: self._seen.get(one.index, 0) - committed(one.topic, one.index) for one in readers}
        return {str(partition): max(0, lag) for partition, lag in behind.items()}

    @property
    def blocked(self) -> str | None:
        """Say why intake does not run; None once the group has given this process its partitions, be it none."""
        joined = self._session is not None and self._session.joined
        return None if joined else f"webhook intake has not joined its group {self._group}"

    async def run(self) -> None:
        """Follow until cancelled. Outages of Kafka are ridden out; any other error of a follower ends it."""
        await self._outage.ride_out(self._run)

    async def _run(self) -> None:
        """Work with one consumer until it has to be replaced. Raise KafkaAwayError then."""
        consumer = connect(self._where, self._group)
        session = self._session = _Session(consumer, self._followed, self._unreadable)
        try:
            await _answered(consumer.start())
            consumer.subscribe([self._where.name(topics.USAGE_EVENTS)], listener=session)
            await self._watch(consumer, session)
        except consumers.UNREADABLE as error:
            raise consumers.UnreadableTopicError(self._where.name(topics.USAGE_EVENTS), error) from error
        except KafkaError as error:
            raise KafkaAwayError(str(error)) from error
        finally:
            self._session = None
            await session.end()
            await consumers.stop(consumer)

    async def _followed(self, reader: TopicReader) -> None:
        """Follow one partition until cancelled; where another dispatcher moves its position, from there again.

        It may only have been late in letting go, and then nobody else would follow the partition.
        """
        lost = Outage(
            f"webhook intake of {reader.lane}",
            _log,
            self._pause,
            of="another dispatcher, which has moved its position",
            passes=lambda error: isinstance(error, PositionLostError),
        )
        await _answered(reader.open())
        await lost.ride_out(lambda: self._follow(reader))

    async def _watch(self, consumer: AIOKafkaConsumer, session: "_Session") -> None:
        """Look after a consumer until it fails. Raises what a follower ended with."""
        stuck: set[tuple[int, int]] = set()
        while True:
            loops.turned(rest_s=self._watch_s)
            await session.failed(self._watch_s)
            # For no partition at all: it gives no records, keeps the group's membership, raises what went wrong.
            await consumer.getmany(TopicPartition(topics.USAGE_EVENTS, -1), timeout_ms=0)
            ends = self._seen = await _answered(self._ends(consumer))
            self._outage.passed()
            waits = {(reader.index, reader.waits_at) for reader in session.readers}
            behind = {(partition, at) for partition, at in waits if at is not None and at < ends.get(partition, 0)}
            if stuck & behind:
                raise KafkaAwayError("the consumer says nothing of records that are there")
            stuck = behind

    async def _ends(self, consumer: AIOKafkaConsumer) -> dict[int, int]:
        name = self._where.name(topics.USAGE_EVENTS)
        partitions = consumer.partitions_for_topic(name)
        if not partitions:
            raise KafkaAwayError(f"the topic {name} is not there: run `tollgate migrate`")
        ends = await consumer.end_offsets([TopicPartition(name, partition) for partition in partitions])
        return {place.partition: end for place, end in ends.items()}


class _Session(ConsumerRebalanceListener):  # type: ignore[misc]  # it has no types
    """One consumer's followers: begun and ended as the group gives and takes partitions."""

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        follow: Callable[[TopicReader], Coroutine[Any, Any, None]],
        unreadable: feed.SkippedRecords,
    ) -> None:
        self.joined = False
        self.readers: list[TopicReader] = []
        self._consumer = consumer
        self._follow = follow
        self._unreadable = unreadable
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending: WeakSet[asyncio.Task[None]] = WeakSet()
        """Those that were cancelled here."""
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin to follow."""
        try:
            for place in sorted(assigned):
                reader = TopicReader(self._consumer, place, topics.USAGE_EVENTS, self._unreadable)
                reader.hold()
                self.readers.append(reader)
                task = asyncio.create_task(loops.run(f"webhook intake of {reader.lane}", self._follow(reader)))
                self._tasks.add(task)
                task.add_done_callback(self._ended)
        except Exception as error:  # noqa: BLE001 - aiokafka would log it, in words that nobody hears
            self._fail(error)
        else:
            self.joined = True

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """End every follower before the group goes on: it takes all partitions, and gives them out anew."""
        await self.end()

    async def end(self) -> None:
        """End every follower, in bounded time: a transaction of theirs may still be under way, and be committed."""
        tasks, self.readers = set(self._tasks), []
        self._ending.update(tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_S)

    async def failed(self, within_s: float) -> None:
        """Raise what a follower ended with; return when none did for so long."""
        await asyncio.wait({self._failure}, timeout=within_s)
        if self._failure.done():
            self._failure.result()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._fail(task.exception() or RuntimeError("a follower of usage events ended by itself"))
        elif task not in self._ending:
            self._fail(RuntimeError("a follower of usage events was cancelled"))

    def _fail(self, error: BaseException) -> None:
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # seen: by the watch, or the session is at its end


def connect(where: Kafka, group: str | None) -> AIOKafkaConsumer:
    """Make a consumer, as a member of `group` or of none."""
    writer.hush()
    return consumers.Consumer(
        where,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none",  # what a position outside the log means is said and decided by the reader
        request_timeout_ms=int(_ANSWER_S * 1000),
        session_timeout_ms=int(_SESSION_S * 1000),
        max_poll_interval_ms=int(_POLL_INTERVAL_S * 1000),
        metadata_max_age_ms=int(_METADATA_AGE_S * 1000),
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        max_partition_fetch_bytes=_FETCH_BYTES,
    )


async def _answered(work: Awaitable[Result]) -> Result:
    """Wait for Kafka's answer, in bounded time. Raise KafkaAwayError and KafkaError."""
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await work
    except (OSError, TimeoutError) as error:
        raise KafkaAwayError(str(error) or f"no answer within {_ANSWER_S:g} s") from error
