"""A follower of the configuration over a Kafka in memory and a real database; time is moved by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from runtime.config import records as config_records
from runtime.config.feed import ConfigFeed
from runtime.database.engines import Database
from runtime.database.readers import ReaderKind
from runtime.kafka.writer import Kafka
from schemas.config import ConfigChange, ConfigKind
from tests.integration.runtime.config import scene
from tests.integration.runtime.config.scene import Heard
from tests.unit.runtime.kafka.fakes import Broker, HandTime

START = datetime(2026, 1, 1, tzinfo=UTC)


class Timely(Database):
    """A database whose work takes none of the time that is moved by hand."""

    def __init__(self, real: Database, time: HandTime) -> None:
        self._real = real
        self._time = time

    async def read(self, work: Callable[[Connection], Any], reader: ReaderKind = ReaderKind.WORK) -> Any:
        self._time.busy += 1
        try:
            return await self._real.read(work, reader)
        finally:
            self._time.busy -= 1


class Follower:
    """A feed, what it is told over Kafka, and what it hands over."""

    def __init__(self, database: Database | None, kinds: Sequence[ConfigKind] = tuple(ConfigKind)) -> None:
        self.database = database
        self.time = HandTime()
        self.broker = Broker(self.time)
        self.heard = Heard()
        self.feed = ConfigFeed(
            Kafka("nowhere:1"),
            self.take,
            database and Timely(database, self.time),
            self.now,
            kinds=kinds,
            steady=self.time,
            pause=self.time.pause,
            connect=self.broker.connect,
        )

    def take(self, changes: Sequence[ConfigChange]) -> None:
        self.heard.apply(changes)

    def now(self) -> datetime:
        return START + timedelta(seconds=self.time.now)

    def send(self, version: int, id_: str, name: str | None = "lab") -> None:
        record = None if name is None else scene.workspace(id_, name)
        change = ConfigChange(version=version, kind=ConfigKind.WORKSPACE, id=id_, record=record)
        self.broker.put(config_records.of(change, self.now()))

    def beat(self, version: int) -> None:
        self.broker.put(config_records.heartbeat(version, self.now()))

    def mute(self) -> None:
        """Let no consumer hear anything any more."""
        made = self.broker.connect

        def connect(where: Kafka) -> object:
            consumer = made(where)
            consumer.is_mute = True
            return consumer

        self.feed._feed._connect = connect  # type: ignore[assignment]
        for consumer in self.broker.consumers:
            consumer.is_mute = True

    def change(self, id_: str, name: str | None = "lab") -> int:
        assert self.database is not None
        return scene.change(self.database, id_, name, self.now())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with scene.running(self.feed.run):
            await self.feed.caught_up()
            yield

    async def passed(self, seconds: float) -> None:
        until = self.time.now + seconds
        while self.time.now < until:  # noqa: ASYNC110 (time that is moved by hand tells nobody)
            await asyncio.sleep(0)

    def names(self) -> list[tuple[str, int]]:
        return [(change.id, change.version) for change in self.heard.changes]


@asynccontextmanager
async def silent(follower: Follower) -> AsyncIterator[None]:
    """Begin with version 1 known, then let nothing be heard."""
    follower.change("first")
    follower.send(1, "first")
    follower.beat(1)
    async with follower.running():
        follower.mute()
        yield
