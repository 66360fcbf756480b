"""A topic in memory behind the publisher's `Writer`, and publishers over real spool files."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, closing, suppress
from datetime import date, datetime
from pathlib import Path

import pytest

from proxy.spool import file as spool_file
from proxy.spool import writer
from proxy.spool.writer import Spool
from proxy.topic import publisher
from proxy.topic.publisher import SpoolPublisher
from runtime.kafka import writer as kafka_writer
from runtime.kafka.writer import KafkaAwayError, KafkaRecord, PlainRecord
from runtime.settings import SpoolSync
from schemas.usage import UsageDraft, UsageEvent
from tests.contracts.proxy.drafts import draft

PARTITIONS = 4
TODAY = draft().timestamp
GROUPS = [f"group-{number}" for number in range(12)]


class Topic:
    """What was written; partitions in `away` refuse, those in `held` wait until they are let go."""

    def __init__(self) -> None:
        self.records: defaultdict[int, list[KafkaRecord]] = defaultdict(list)
        self.away: set[int] = set()
        self.held: dict[int, asyncio.Event] = {}
        self.unplaced: set[int] = set()
        """Partitions that take records and do not say where."""
        self.refused = 0
        self._under_way: set[tuple[bytes, int]] = set()

    async def partitions(self, topic: str) -> int:
        assert topic == "usage.events.v1"
        if len(self.away) == PARTITIONS:
            self.refused += 1
            raise KafkaAwayError("no Kafka")
        return PARTITIONS

    async def write_to(self, topic: str, partition: int, records: Sequence[PlainRecord], within_s: float) -> list[int]:
        assert 0 < within_s <= 10
        named = [KafkaRecord(*record) for record in records]
        assert {partition} == {kafka_writer.partition_of(record.key, PARTITIONS) for record in named}
        (instance,) = {dict(record.headers)["ce_source"] for record in named}
        assert (instance, partition) not in self._under_way
        self._under_way.add((instance, partition))
        try:
            if partition in self.held:
                await self.held[partition].wait()
            await asyncio.sleep(0)
            if partition in self.away:
                self.refused += 1
                raise KafkaAwayError("no Kafka")
            first = len(self.records[partition])
            self.records[partition] += named
            if partition in self.unplaced:
                return [kafka_writer.UNKNOWN] * len(named)
            return list(range(first, first + len(named)))
        finally:
            self._under_way.remove((instance, partition))

    @property
    def events(self) -> dict[int, list[UsageEvent]]:
        return {
            partition: [UsageEvent.model_validate_json(record.value or b"") for record in records]
            for partition, records in self.records.items()
        }

    @property
    def sequences(self) -> list[int]:
        return sorted(event.producer.sequence for events in self.events.values() for event in events)


def charged(number: int, at: datetime = TODAY) -> UsageDraft:
    """Return an event of group `number` below the root of its number modulo 12."""
    groups = (f"own-{number}", GROUPS[number % 12])
    return draft(number).model_copy(update={"charged_groups": groups, "timestamp": at})


def partition_of(number: int) -> int:
    return kafka_writer.partition_of(GROUPS[number % 12].encode(), PARTITIONS)


def opened(folder: Path, **options: object) -> tuple[Spool, list[spool_file.SpoolFile]]:
    return writer.open_folder(folder, **({"sync": SpoolSync.NORMAL, "max_bytes": 2**30} | options))  # type: ignore[arg-type]


async def spooled(sink: Spool, numbers: Iterable[int], at: datetime = TODAY) -> None:
    await asyncio.gather(*[sink.put(charged(number, at)) for number in numbers])


class Limits:
    """The publisher's `Limits`: keeps where rows are, and says of all of them whether their lane has passed them."""

    def __init__(self, *, passed: bool = False) -> None:
        self.passed = passed
        self.placed: dict[tuple[str, int], tuple[int, int]] = {}
        """(instance, sequence) to (partition, offset)."""

    def acknowledge(self, lane: int, instance: str, placed: Iterable[tuple[int, int]]) -> None:
        self.placed |= {(instance, sequence): (lane, offset) for sequence, offset in placed}

    def may_go(  # noqa: PLR0917 - the port's
        self, group_ids: Sequence[str], slug: str, day: date, instance: str, sequence: int, offset: int
    ) -> bool:
        return self.passed


async def no_ends() -> Mapping[int, int]:
    """Stand for an end that nobody asks for."""
    raise AssertionError("the broker has placed every record")


def publishing(
    sink: Spool,
    writer: publisher.Writer,
    older: Sequence[spool_file.SpoolFile] = (),
    limits: publisher.Limits | None = None,
    ends: publisher.Ends = no_ends,
) -> SpoolPublisher:
    drained = spool_file.drained_instances(sink.file.path.parent)
    return SpoolPublisher(sink, older, drained, writer, limits or Limits(), ends)


@asynccontextmanager
async def running(*parts: object) -> AsyncIterator[None]:
    """Run publishers and spools until the block ends; a part that fails fails the test."""
    tasks = [
        asyncio.create_task(part.run() if isinstance(part, SpoolPublisher) else part.maintain())  # type: ignore[attr-defined]
        for part in parts
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], object], within_s: float = 90) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - files and fakes say nothing when they change
            await asyncio.sleep(0.005)


def rows(path: Path) -> list[int]:
    """Return the sequences that a spool holds, as another process sees it."""
    with closing(spool_file.SpoolFile(path)) as other:
        return [event.producer.sequence for event in other.remaining()]


def mark_in(path: Path) -> int:
    with closing(spool_file.SpoolFile(path)) as other:
        return other.acknowledged_through


def be_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let publishers and spools look after themselves at once."""
    monkeypatch.setattr(publisher, "GATHER_S", 0.001)
    monkeypatch.setattr(publisher, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(publisher, "_MOST_PAUSE_S", 0.01)
    monkeypatch.setattr(publisher, "_LET_GO_EVERY_S", 0.01)
    monkeypatch.setattr(writer, "_TIDY_EVERY_S", 0.01)
