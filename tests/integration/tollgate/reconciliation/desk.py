"""A data directory whose spool, ledger and deliveries are filled by hand, as far as a test wants them to be."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import text
from ulid import ULID

from control.flow import corrections as corrections_flow
from control.store import corrections
from domain.sources import EventBatch
from metering.store import positions
from metering.store import transaction as metering_store
from proxy.spool import file as spool_file
from proxy.spool import slots as slot_files
from proxy.spool import writer
from proxy.spool.slots import Slots
from runtime import ids, settings
from runtime.settings import SpoolSync
from schemas.usage import Outcome, Tokens, UsageDraft, UsageEvent, UsageSource
from tollgate import installation
from tollgate.installation import Installation
from tollgate.reconciliation import compare
from tollgate.reconciliation.accounts import Period, Report
from tollgate.reconciliation.compare import Reconciliation
from tollgate.reconciliation.embedded import EmbeddedAccounts
from webhooks.core import batching
from webhooks.core.batching import Billed
from webhooks.core.deliveries import Draft, Status
from webhooks.store import deliveries as webhooks_store

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
TODAY = NOW.date()


def draft(number: int, *, at: datetime = NOW, workspace_id: str = "ws", **fields: Any) -> UsageDraft:
    """Make an event of 10 tokens in and 5 out."""
    given: dict[str, Any] = {
        "idempotency_key": str(ULID.from_datetime(at)),
        "request_id": f"request-{number}",
        "timestamp": at,
        "workspace_id": workspace_id,
        "group_id": f"group of {workspace_id}",
        "charged_groups": (f"group of {workspace_id}",),
        "external_entity_id": "customer",
        "api_key_prefix": "sky_abcdefghijkl",
        "model_slug": "lab/model",
        "tokens": Tokens(input_tokens=10, output_tokens=5),
        "usage_source": UsageSource.PROVIDER,
        "outcome": Outcome.COMPLETE,
        "stream": False,
        "latency_ms": 1,
        "first_byte_ms": 1,
    }
    return UsageDraft(**given | fields)


@dataclass
class Desk:
    """What tests do by hand that the server does by itself."""

    place: Installation
    spool: writer.Spool

    async def put(self, *drafts: UsageDraft) -> None:
        for one in drafts:
            await self.spool.put(one)

    async def count(self, limit: int = 1000) -> None:
        """Let metering take the next events."""
        topic = self.spool.file.topic
        position = self.place.read(lambda connection: positions.position(connection, topic, 0)) or 1
        self.apply(await self.spool.file.read(position, limit))

    async def take(self, limit: int = 1000, status: Status = Status.DELIVERED) -> None:
        """Let intake take the next events, into one delivery of `status`."""
        topic = self.spool.file.topic
        position = self.place.read(lambda connection: webhooks_store.position(connection, topic, 0)) or 1
        self.enqueue(await self.spool.file.read(position, limit), status)

    async def pass_on(self, *drafts: UsageDraft) -> None:
        """Put events and let both take them."""
        await self.put(*drafts)
        await self.count()
        await self.take()

    def apply(self, batch: EventBatch) -> None:
        self.place.write(lambda connection: metering_store.apply(connection, batch, lambda: NOW))

    def enqueue(self, batch: EventBatch, status: Status = Status.DELIVERED) -> None:
        events: dict[str, list[Billed]] = {}
        for event in batch.events:
            events.setdefault(event.workspace_id, []).append(batching.bill(event))
        drafts = [Draft(ids.mint(), workspace, status, tuple(own)) for workspace, own in events.items()]
        self.place.write(lambda connection: webhooks_store.enqueue(connection, drafts, [batch], NOW))

    def correct(self, key: str, input_tokens: int, output_tokens: int) -> UsageEvent:
        return correct(self.place, key, input_tokens, output_tokens, NOW)

    async def corrections_batch(self) -> EventBatch:
        return await corrections.Outbox(self.place.database).read(1, 100)

    def in_flight(self, request_id: str) -> None:
        slots = Slots(self.place.folder / slot_files.FILE, count=4)
        slots.open_slot(json.dumps({"idempotencyKey": ids.mint(), "requestId": request_id}).encode())
        slots.close()

    def execute(self, statement: str) -> None:
        self.place.write(lambda connection: connection.execute(text(statement)))

    def reconcile(
        self,
        from_day: date = TODAY,
        to_day: date = TODAY,
        account: Path | None = None,
        *,
        pause: Callable[[float], None] = time.sleep,
        wait_s: float = compare.WAIT_S,
    ) -> Report:
        period = Period(from_day, to_day, TODAY)
        accounts = EmbeddedAccounts(self.place, period, pause=pause)
        return Reconciliation(accounts, period, pause=pause, wait_s=wait_s).run(account)

    def account(self, *lines: dict[str, Any]) -> Path:
        return write_account(self.place.folder, lines)


def correct(place: Installation, key: str, input_tokens: int, output_tokens: int, now: datetime) -> UsageEvent:
    """Keep a correction in the outbox."""
    return place.write(
        lambda connection: corrections_flow.correct(
            corrections.SqlCorrections(connection),
            lambda: now,
            event_key=key,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            reason="miscounted",
        )
    )


def write_account(folder: Path, lines: Iterable[dict[str, Any]]) -> Path:
    """Write the upstream's account."""
    path = folder / "account.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def served(*numbers: int, **fields: Any) -> list[dict[str, Any]]:
    """Return the upstream's lines of requests."""
    given = {"model": "m", "input_tokens": 10, "output_tokens": 5, "completed_at": "2026-03-10T12:00:01.000Z"}
    return [{"request_id": f"request-{number}"} | given | fields for number in numbers]


@contextmanager
def opened(folder: Path) -> Iterator[Desk]:
    with installation.opened(settings.load(data_dir=folder), new=True) as place:
        own, _ = writer.open_folder(folder / spool_file.FOLDER, sync=SpoolSync.NORMAL, max_bytes=2**30)
        try:
            yield Desk(place, own)
        finally:
            own.close()


def numbered(count: int, **fields: Any) -> Iterable[UsageDraft]:
    return [draft(number, **fields) for number in range(1, count + 1)]


def days_ago(days: int) -> datetime:
    return NOW - timedelta(days=days)
