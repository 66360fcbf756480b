"""A metering worker over a real Kafka and PostgreSQL, and what can be seen of it from outside."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord
from sqlalchemy import Select, func, select
from sqlalchemy.exc import OperationalError

from metering.store import events, positions, tables
from metering.thresholds import GroupThresholds
from metering.topic.worker import GROUP, MeteringWorker
from runtime import clock
from runtime.database.engines import Database
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from schemas.daily import DailyUsage
from schemas.decisions import Decision
from schemas.topics import LIMITS_DECISIONS, USAGE_DAILY, USAGE_EVENTS, USAGE_UNREADABLE, WHOLE_KEY
from schemas.usage import UsageEvent
from tests.support import records
from tests.unit.metering.factories import event

WITHIN_S = 60
_LOOK_EVERY_S = 0.05  # what another process has done is only seen by looking


class Ahead:
    """A worker's clock, set forward by hand."""

    def __init__(self, by: timedelta = timedelta()) -> None:
        self.by = by

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.by


class Scene:
    """One installation; `writer` is the proxies' and metering's."""

    def __init__(self, where: Kafka, database: Database) -> None:
        self.where = where
        self.database = database
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.writer = Writer(where, "test")

    def event(self, number: int, group: str = "group-a", **fields: Any) -> UsageEvent:
        """Make an event of today."""
        return event(number, group_id=group, **{"timestamp": self.now, **fields})

    async def put(self, *events: UsageEvent) -> None:
        """Write events as a proxy does."""
        await self.write([(each.group_id.encode(), each.model_dump_json().encode()) for each in events])

    async def write(self, pairs: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write any keys and values to the usage topic."""
        await self.writer.write(USAGE_EVENTS, [KafkaRecord(key, value, (("ce_id", b"x"),)) for key, value in pairs])

    def worker(self, **options: Any) -> MeteringWorker:
        """Make a worker that shares everything but its memory with the others."""
        thresholds = options.pop("thresholds", GroupThresholds())
        options = {"writer": self.writer} | options
        goes_by = options.pop("goes_by", clock.steady())
        return MeteringWorker(self.where, self.database, thresholds, goes_by, **options)

    def counted(self) -> int:
        """Return how many events the ledger has."""
        return self._one(select(func.count()).select_from(events.USAGE_EVENT))

    def requests(self) -> int:
        """Return the sum of daily usage, which is the ledger's count if nothing counts twice."""
        return self._one(select(func.coalesce(func.sum(tables.USAGE_DAILY.c.requests), 0)))

    def position(self, partition: int = 0) -> int | None:
        """Return a partition's position in the database."""
        return self.database.read_now(lambda connection: positions.position(connection, USAGE_EVENTS, partition))

    def set_position(self, next_offset: int, partition: int = 0) -> None:
        """Move a position by hand."""
        columns = positions.METERING_POSITION.c
        move = (
            positions.METERING_POSITION.update().where(columns.partition == partition).values(next_offset=next_offset)
        )
        self.database.write_now(lambda connection: connection.execute(move))

    def published(self, partition: int = 0) -> int | None:
        """Give up to which offset all is noted as told."""
        found = self.database.read_now(lambda connection: positions.read(connection, USAGE_EVENTS, partition))
        return None if found is None else found.told_offset

    def _one(self, query: Select[Any]) -> int:
        return int(self.database.read_now(lambda connection: connection.execute(query).scalar_one()))

    async def offsets(self) -> dict[int, int | None]:
        """Return what the consumer group has written down."""
        async with self.group() as consumer:
            places = await self._places()
            return {place.partition: await consumer.committed(place) for place in places}

    async def set_offset(self, offset: int, partition: int = 0) -> None:
        """Write a group's offset by hand; nobody may be in the group."""
        async with self.group() as consumer:
            place = TopicPartition(self.where.name(USAGE_EVENTS), partition)
            consumer.assign([place])
            await consumer.commit({place: offset})

    @asynccontextmanager
    async def group(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.where.bootstrap, group_id=self.where.name(GROUP), enable_auto_commit=False
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()

    async def _places(self) -> list[TopicPartition]:
        count = await self.writer.partitions(USAGE_EVENTS)
        return [TopicPartition(self.where.name(USAGE_EVENTS), partition) for partition in range(count)]

    async def unreadable(self) -> list[ConsumerRecord]:
        """Return what lies aside."""
        return [one for some in (await records.read(self.where, USAGE_UNREADABLE)).values() for one in some]

    async def decisions(self) -> list[Decision]:
        """Return every decision, each counter's in their order."""
        found = await records.read(self.where, LIMITS_DECISIONS)
        return [
            Decision.model_validate_json(one.value) for some in found.values() for one in some if one.key != WHOLE_KEY
        ]

    async def daily(self) -> list[DailyUsage]:
        """Return every daily usage, each counter's in their order."""
        found = await records.read(self.where, USAGE_DAILY)
        return [DailyUsage.model_validate_json(one.value) for some in found.values() for one in some]


async def until(holds: Callable[[], bool], run: "asyncio.Future[None] | None" = None) -> None:
    """Return when it holds; fail when it does not in time, or when `run` ended before."""
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            if run is not None and run.done():
                run.result()
                raise AssertionError("the worker ended by itself")
            await asyncio.sleep(_LOOK_EVERY_S)


@asynccontextmanager
async def running(worker: MeteringWorker) -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker for the length of a `with` block; it must end as it should."""
    run = asyncio.create_task(worker.run())
    try:
        yield run
    finally:
        await worker.stop()
        await asyncio.wait({run}, timeout=WITHIN_S)
        run.cancel()
    await run


async def failing(run: Awaitable[None]) -> BaseException:
    """Return what a worker ends with by itself."""
    try:
        async with asyncio.timeout(WITHIN_S):
            await run
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error
    raise AssertionError("the worker ended without an error")


def away(*_: Any) -> Any:
    """Fail as a statement does while the database is away; in place of a store's own function."""
    raise OperationalError("SELECT", {}, ConnectionError("the server closed the connection"))


def places(worker: MeteringWorker) -> list[Any]:
    """Return where a worker reads the partitions that are its own now."""
    if not worker._fetches._is_started:
        return []
    consumer = worker._fetches._consumer
    return [at for at in consumer._places.values() if at.generation == consumer._generation]
