"""A real topic, one PostgreSQL, and any number of dispatchers' intakes on both."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import insert, select

from runtime import clock
from runtime.database.engines import Database
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from runtime.settings import Settings
from schemas import topics
from schemas.usage import UsageEvent
from tests.integration.webhooks.scene import VAULT
from tests.support import records
from tests.unit.webhooks import kit
from webhooks.app import Dispatcher
from webhooks.store import tables
from webhooks.topic import consumer
from webhooks.topic.consumer import IntakeConsumer

PARTITIONS = 4
PATIENCE_S = 120.0
TOPIC = topics.USAGE_EVENTS


@dataclass
class Member:
    """One dispatcher's intake."""

    stream: IntakeConsumer
    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


class Scene:
    """One topic, one database, any number of dispatchers."""

    def __init__(self, where: Kafka, opened: Database) -> None:
        self.where = where
        self.database = opened
        self.members: list[Member] = []
        self._writer = Writer(where, "test")

    def join(self, group: str = consumer.GROUP, *, linger_ms: int = 0, watch_s: float = 0.2) -> Member:
        settings = Settings(webhook_linger_ms=linger_ms)
        dispatcher = Dispatcher(self.database, VAULT, clock.steady(), settings)
        one = IntakeConsumer(self.where, dispatcher.follow, group=group, watch_s=watch_s)
        self.members.append(Member(one, asyncio.create_task(one.run())))
        return self.members[-1]

    async def write(self, events: Sequence[UsageEvent], *others: bytes) -> None:
        """Spread the events over the partitions by their keys."""
        values = [(event.idempotency_key, event.model_dump_json(by_alias=True).encode()) for event in events]
        values += [(str(number), value) for number, value in enumerate(others)]
        await self._writer.write(TOPIC, [KafkaRecord(key.encode(), value) for key, value in values])

    def taken(self) -> Counter[str]:
        """Count in how many deliveries each key is."""
        query = select(tables.DELIVERY.c.body)
        bodies = self.database.read_now(lambda connection: connection.execute(query).scalars().all())
        return Counter(event["idempotencyKey"] for body in bodies for event in json.loads(body)["data"]["events"])

    def positions(self) -> dict[int, int]:
        columns = tables.WEBHOOK_POSITION.c
        query = select(columns.partition, columns.next_offset)
        return {row[0]: row[1] for row in self.database.read_now(lambda connection: connection.execute(query).all())}

    def place(self, offset: int, partition: int = 0) -> None:
        row = {"topic": TOPIC, "partition": partition, "next_offset": offset}
        self.database.write_now(lambda connection: connection.execute(insert(tables.WEBHOOK_POSITION), [row]))

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when `holds`; other tasks and threads bring it about, and none of them tells."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                for member in self.members:
                    if member.task.done() and not member.task.cancelled():
                        member.task.result()
                await asyncio.sleep(0.02)

    async def until_taken(self, events: Sequence[UsageEvent]) -> None:
        wanted = {event.idempotency_key for event in events}
        await self.until(lambda: self.taken().keys() >= wanted)

    async def close(self) -> None:
        for member in self.members:
            await member.stop()
        await self._writer.close()


@contextlib.asynccontextmanager
async def scene_on(where: Kafka, opened: Database, partitions: int) -> AsyncIterator[Scene]:
    await records.make_topics(where, partitions=partitions, only=[TOPIC])
    scene = Scene(where, opened)
    try:
        yield scene
    finally:
        await scene.close()


def events(count: int, first: int = 1) -> list[UsageEvent]:
    return [kit.event(number, f"ws-{number % 3}") for number in range(first, first + count)]


def shares(*members: Member) -> list[int]:
    """Say how many partitions each follows."""
    sessions = [member.stream._session for member in members]
    return [len(session.readers) if session else 0 for session in sessions]
