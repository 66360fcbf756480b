"""A cluster whose topic, ledger and deliveries are filled by hand, as far as a test wants them to be."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from sqlalchemy import text

from domain import ledger_days, validity
from domain.sources import EventBatch
from metering.store import day_partitions
from metering.store import transaction as metering_store
from proxy.spool import file as spool_file
from runtime import ids
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from schemas.spool import SpoolFigures
from schemas.topics import USAGE_EVENTS
from schemas.usage import UsageEvent
from tests.integration.tollgate.reconciliation import desk as desks
from tests.support import records
from tollgate.installation import Installation
from tollgate.reconciliation.accounts import Period, Report
from tollgate.reconciliation.cluster import ClusterAccounts
from tollgate.reconciliation.compare import Reconciliation
from tollgate.reconciliation.topic import Topic
from webhooks.core import batching
from webhooks.core.deliveries import Draft, Status
from webhooks.store import deliveries as webhooks_store

NOW = datetime.now(UTC)
"""The broker and the ledger's days go by the real clock."""
TODAY = NOW.date()
PARTITIONS = 4


def events(count: int, instance: str = "a", *, first: int = 1, at: datetime = NOW, **fields: Any) -> list[UsageEvent]:
    """Make events of one producer, in three workspaces' groups."""
    return [
        spool_file.numbered(
            desks.draft(
                number, at=at, **{"group_id": f"group {number % 7} of {fields.get('workspace_id', 'ws')}"} | fields
            ),
            instance,
            number,
        )
        for number in range(first, first + count)
    ]


def row(
    instance: str, acknowledged: int, last: int, figures: tuple[int, int, int] = (0, 0, 0), day: date | None = TODAY
) -> SpoolFigures:
    """Make a row of a proxy's report; without figures the instance has nothing unpublished."""
    requests, input_tokens, output_tokens = figures
    return SpoolFigures(
        instance=instance,
        workspace_id="ws" if any(figures) else None,
        day=day if any(figures) else None,
        requests=requests,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        acknowledged_through=acknowledged,
        last_sequence=last,
    )


@dataclass
class Reports:
    """What the proxies say; `meanwhile` happens when they are asked."""

    rows: list[SpoolFigures] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def ask(self) -> list[SpoolFigures]:
        rows = list(self.rows)
        self.meanwhile()
        return rows


class Reader:
    """One that follows the topic."""

    def __init__(self, where: Kafka) -> None:
        self._consumer = AIOKafkaConsumer(
            where.name(USAGE_EVENTS), bootstrap_servers=where.bootstrap, auto_offset_reset="earliest"
        )
        self.start, self.stop = self._consumer.start, self._consumer.stop

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Return what is new, up to the logs' ends as they are now."""
        for place, end in (await self._consumer.end_offsets(self._consumer.assignment())).items():
            at = await self._consumer.position(place)
            while at < end:
                found = (await self._consumer.getmany(place, timeout_ms=1000)).get(place, [])
                if found:
                    first, at = at, found[-1].offset + 1
                    lane = f"{USAGE_EVENTS}/{place.partition}"
                    yield EventBatch(USAGE_EVENTS, place.partition, lane, first, at, tuple(_decoded(found)))


@dataclass
class ClusterDesk:
    """What tests do by hand that processes do by themselves."""

    place: Installation
    kafka: Kafka
    writer: Writer
    metering: Reader
    intake: Reader
    reports: Reports = field(default_factory=Reports)

    async def publish(self, some: Iterable[UsageEvent]) -> None:
        await self.write(*((event.group_id.encode(), event.model_dump_json().encode()) for event in some))

    async def write(self, *pairs: tuple[bytes, bytes | None]) -> None:
        await self.writer.write(USAGE_EVENTS, [KafkaRecord(*pair) for pair in pairs])

    async def count(self) -> None:
        """Let metering take what there is."""
        async for batch in self.metering.batches():
            self.place.write(partial(metering_store.apply, batch=batch, clock=lambda: NOW))

    async def take(self, status: Status = Status.DELIVERED) -> None:
        """Let intake take what there is, into deliveries of `status`."""
        async for batch in self.intake.batches():
            drafts = [Draft(ids.mint(), event.workspace_id, status, (batching.bill(event),)) for event in batch.events]
            self.place.write(partial(webhooks_store.enqueue, drafts=drafts, batches=[batch], now=NOW))

    async def pass_on(self, some: list[UsageEvent]) -> None:
        """Publish events, let both take them, and let their producers say so."""
        await self.publish(some)
        await self.count()
        await self.take()
        self.reports.rows += [row(instance, end, end) for instance, end in _ends(some).items()]

    def correct(self, key: str, input_tokens: int, output_tokens: int) -> UsageEvent:
        return desks.correct(self.place, key, input_tokens, output_tokens, NOW)

    def account(self, *numbers: int) -> Path:
        lines = desks.served(*numbers, completed_at=NOW.isoformat())
        return desks.write_account(self.place.folder, lines)

    def execute(self, statement: str) -> None:
        self.place.write(lambda connection: connection.execute(text(statement)))

    async def reconcile(
        self,
        from_day: date = TODAY,
        to_day: date = TODAY,
        account: Path | None = None,
        *,
        ignored: Iterable[str] = (),
        wait_s: float = 20,
        late_s: float = 0,
        pause: Callable[[float], None] = lambda _: None,
    ) -> Report:
        period = Period(from_day, to_day, TODAY)
        accounts = ClusterAccounts(
            self.place, period, self.reports, Topic(self.kafka), frozenset(ignored), late_s=late_s, pause=pause
        )
        run = Reconciliation(accounts, period, wait_s=wait_s, pause=pause)
        return await asyncio.to_thread(run.run, account)


@asynccontextmanager
async def opened(where: Kafka, place: Installation) -> AsyncIterator[ClusterDesk]:
    await records.make_topics(where, partitions=PARTITIONS, only=[USAGE_EVENTS])
    place.write(partial(day_partitions.ensure, today=TODAY))
    desk = ClusterDesk(place, where, Writer(where, "desk"), Reader(where), Reader(where))
    try:
        for reader in (desk.metering, desk.intake):
            await reader.start()
        yield desk
    finally:
        for reader in (desk.metering, desk.intake):
            await reader.stop()
        await desk.writer.close()


def first_key(cluster: ClusterDesk) -> str:
    """Return an event's key; a correction's is none."""
    query = text("SELECT min(idempotency_key) FROM usage_event WHERE kind = 'usage'")
    key: str = cluster.place.read(lambda connection: connection.execute(query).scalar_one())
    return key


def _decoded(found: Iterable[Any]) -> Iterable[UsageEvent]:
    for record in found:
        try:
            yield validity.read(record.value, ledger_days.EVERY)
        except validity.UnreadableError:
            continue  # metering sets it aside


def _ends(some: Iterable[UsageEvent]) -> dict[str, int]:
    ends: dict[str, int] = {}
    for event in some:
        ends[event.producer.instance] = max(event.producer.sequence, ends.get(event.producer.instance, 0))
    return ends
