"""What the tests of the feeds share: followers' ears, changes as control writes them, and a relay over real Kafka."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from control.topic.publisher import ConfigPublisher
from runtime.config import log as config_log
from runtime.database.engines import Database
from runtime.database.leadership import PostgresLeadership
from runtime.kafka import feed
from runtime.kafka.feed import FeedRecord
from runtime.kafka.writer import Kafka, Writer
from schemas.config import ConfigChange, ConfigKind, WorkspaceRecord, WorkspaceState
from schemas.topics import GATEWAY_CONFIG

WITHIN_S = 60
"""How long a test waits for another task, on a machine that others use too."""


def now() -> datetime:
    return datetime.now(UTC)


class Heard:
    """What a feed handed over, and a way to wait for it."""

    def __init__(self) -> None:
        self.records: list[FeedRecord] = []
        self.changes: list[ConfigChange] = []
        self._more = asyncio.Event()

    def take(self, records: Sequence[FeedRecord]) -> None:
        self.records += records
        self._more.set()

    def apply(self, changes: Sequence[ConfigChange]) -> None:
        self.changes += changes
        self._more.set()

    async def until(self, is_there: Callable[[], bool], within_s: float = WITHIN_S) -> None:
        async with asyncio.timeout(within_s):
            while not is_there():
                self._more.clear()
                await self._more.wait()

    async def version(self, version: int, within_s: float = WITHIN_S) -> None:
        await self.until(lambda: any(change.version >= version for change in self.changes), within_s)

    def state(self) -> dict[str, ConfigChange]:
        """Return the newest change of each thing, as a snapshot holds it."""
        newest: dict[str, ConfigChange] = {}
        for change in self.changes:
            if change.id not in newest or newest[change.id].version < change.version:
                newest[change.id] = change
        return newest


@asynccontextmanager
async def running(*works: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run these for the length of a `with` block; an error of theirs fails the test."""
    tasks = [asyncio.create_task(work()) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended


def relay(database: Database, kafka: Kafka) -> ConfigPublisher:
    async def end_of_config() -> int:
        return (await feed.ends(kafka, GATEWAY_CONFIG))[0]

    return ConfigPublisher(database, Writer(kafka, "relay"), PostgresLeadership(database, "relay"), end_of_config, now)


def workspace(id_: str, name: str = "lab") -> WorkspaceRecord:
    return WorkspaceRecord(id=id_, name=name, state=WorkspaceState.ACTIVE, operator_credential=False)


def change(database: Database, id_: str, name: str | None = "lab", at: datetime | None = None) -> int:
    """Write a change of a workspace as control does; None ends it. Return its version."""
    record = None if name is None else workspace(id_, name)
    return database.write_now(
        lambda connection: config_log.append(connection, at or now(), ConfigKind.WORKSPACE, id_, record)
    )


def broken(database: Database, id_: str) -> int:
    """Write a change whose record nobody can read; return its version."""
    version = change(database, id_)
    spoil = config_log.CONFIG_CHANGE.update().where(config_log.CONFIG_CHANGE.c.version == version)
    database.write_now(lambda connection: connection.execute(spoil.values(record={"id": 7})))
    return version
