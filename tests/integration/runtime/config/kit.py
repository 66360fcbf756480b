"""A relay over a real database of each engine, whose Kafka is a list and whose time is moved by hand."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from control.store import published
from control.topic.publisher import ConfigPublisher
from runtime.config import records as config_records
from runtime.config.log import CONFIG_CHANGE
from runtime.database.engines import Database
from runtime.database.leadership import LeadershipLostError
from runtime.kafka.feed import FeedRecord
from runtime.kafka.writer import KafkaRecord
from schemas.config import ConfigChange
from schemas.topics import GATEWAY_CONFIG
from tests.integration.runtime.config import scene
from tests.unit.runtime.kafka.fakes import HandTime

START = datetime(2026, 1, 1, tzinfo=UTC)


class Topics:
    """Implements the relay's `Writer`, and its `Leadership` of one who nobody contests."""

    def __init__(self) -> None:
        self.written: list[tuple[str, KafkaRecord]] = []
        self.end = 0
        self.refuses: Callable[[KafkaRecord], Exception | None] = lambda record: None
        self.loses: Callable[[KafkaRecord], bool] = lambda record: False
        self.is_leading = True
        self.is_free = True
        self.is_closed = False
        self._asked = asyncio.Event()

    async def write(self, topic: str, records: Sequence[KafkaRecord]) -> None:
        await asyncio.sleep(0)
        assert self.is_leading, "sent without the lock"
        for record in records:
            if (error := self.refuses(record)) is not None:
                raise error
        kept = [(topic, record) for record in records if not self.loses(record)]
        self.written += kept
        self.end += sum(topic == GATEWAY_CONFIG for topic, _ in kept)
        self._asked.set()

    async def close(self) -> None:
        self.is_closed = True

    async def take(self) -> bool:
        self._asked.set()
        return self.is_free

    async def check(self) -> None:
        await asyncio.sleep(0)
        if not self.is_leading:
            raise LeadershipLostError("lost")

    async def release(self) -> None:
        self.is_free = True

    async def end_of_config(self) -> int:
        return self.end

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that shows once a relay writes or asks for the lock."""
        async with asyncio.timeout(scene.WITHIN_S):
            while not is_so():
                self._asked.clear()
                await self._asked.wait()

    async def arrived(self, id_: str) -> None:
        await self.until(lambda: id_ in dict(self.names()))

    def config(self) -> list[KafkaRecord]:
        """Return the changes that were written, without the heartbeats."""
        return [record for topic, record in self.written if topic == GATEWAY_CONFIG and record.key != b"heartbeat"]

    def changes(self) -> list[ConfigChange]:
        return decoded(self.config())

    def names(self) -> list[tuple[str, int]]:
        return [(change.id, change.version) for change in self.changes()]

    def heartbeats(self) -> list[int]:
        records = [FeedRecord(*record) for _, record in self.written if record.key == b"heartbeat"]
        return [config_records.decode([record], (), fail)[1] for record in records]

    def forget(self) -> None:
        self.written.clear()


def fail(record: FeedRecord, error: Exception) -> None:
    raise error


def decoded(records: Sequence[KafkaRecord]) -> list[ConfigChange]:
    return config_records.decode([FeedRecord(*record) for record in records], config_records.EVERY_KIND, fail)[0]


class Scene:
    """One relay after the other over one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.topics = Topics()
        self.time = HandTime()
        self.relay = self.another()

    def another(self) -> ConfigPublisher:
        """Make a relay that has not begun, as another process would."""
        topics = self.topics
        return ConfigPublisher(
            self.database,
            topics,
            topics,
            topics.end_of_config,
            self.now,
            steady=self.time,
            pause=self.time.pause,
        )

    def now(self) -> datetime:
        return START + timedelta(seconds=self.time.now)

    async def begin(self) -> None:
        """Let a new relay take over and do its first round."""
        self.relay = self.another()
        await self.relay.take_over()
        await self.step()

    async def step(self, after_s: float = 0) -> None:
        self.time.now += after_s
        while await self.relay.step():
            pass

    def change(self, id_: str, name: str | None = "lab") -> int:
        return scene.change(self.database, id_, name, self.now())

    def mark(self, name: str) -> int:
        return self.database.read_now(lambda connection: published.read(connection, name))

    def logged(self) -> list[int]:
        query = select(CONFIG_CHANGE.c.version).order_by(CONFIG_CHANGE.c.version)
        return list(self.database.read_now(lambda connection: connection.scalars(query).all()))
