"""The outbox of corrections: written by `tollgate correct`, followed by metering and webhooks like a spool.

Never removes what a reader may still want, and never gives a sequence twice or leaves one out: one locked counter row
hands them out inside the correction's own transaction.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from control.store.tables import CORRECTION, CORRECTION_COUNTER
from domain.sources import EventBatch
from metering.store import events, positions
from runtime import ids
from runtime.database import statements
from runtime.database.engines import Database
from runtime.outage import Outage
from schemas.usage import Producer, Tokens, UsageDraft, UsageEvent
from webhooks.store import deliveries

TOPIC = "corrections"
LANE = "corrections"
"""Corrections add to no limit total, so that they may be counted beside the proxies' events."""

POLL_S = 0.25
"""Corrections by another process are seen this late at most."""

_log = logging.getLogger(__name__)

_ROWS = select(CORRECTION.c.sequence, CORRECTION.c.event, CORRECTION_COUNTER.c.instance).join(
    CORRECTION_COUNTER, CORRECTION_COUNTER.c.id == 1
)


class SqlCorrections:
    """The corrections and what they correct, in one transaction that writes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, idempotency_key: str) -> UsageEvent | None:
        """Return the event of the ledger."""
        return events.find(self._connection, idempotency_key)

    def lock(self) -> None:
        """Hold every other correction off until this transaction ends."""
        first = statements.insert_into(self._connection.dialect.name, CORRECTION_COUNTER).on_conflict_do_nothing()
        self._connection.execute(first, {"id": 1, "instance": ids.mint(), "sequence": 0})
        self._connection.execute(select(CORRECTION_COUNTER).with_for_update()).one()

    def made(self, key: str) -> UsageEvent | None:
        """Return the correction of this key, whether the ledger has it or not."""
        row = self._connection.execute(_ROWS.where(CORRECTION.c.idempotency_key == key)).one_or_none()
        return None if row is None else _event(row)

    def corrected(self, idempotency_key: str) -> Tokens:
        """Sum the corrections of one event, those included that the ledger does not have yet."""
        return corrected(self._connection, [idempotency_key]).get(
            idempotency_key, Tokens(input_tokens=0, output_tokens=0)
        )

    def put(self, draft: UsageDraft, now: datetime) -> UsageEvent:
        """Keep a correction; return it with its number."""
        counter = CORRECTION_COUNTER.c
        step = update(CORRECTION_COUNTER).values(sequence=counter.sequence + 1)
        instance, sequence = self._connection.execute(step.returning(counter.instance, counter.sequence)).one()
        self._connection.execute(insert(CORRECTION).values(_row(sequence, draft, now)))
        return UsageEvent(**dict(draft), producer=Producer(instance=instance, sequence=sequence))


class Outbox:
    """A partition of usage events whose offsets are the corrections' sequences. An outage is waited out."""

    topic = TOPIC
    index = 0
    lane = LANE
    first_offset = 1

    def __init__(self, database: Database, *, poll_s: float = POLL_S) -> None:
        self._database = database
        self._poll_s = poll_s
        self._outage = Outage("the outbox of corrections", _log)

    async def read(self, offset: int, limit: int) -> EventBatch:
        """Return at most `limit` corrections from `offset` on, in order; none where there are none yet."""
        events = await self._outage.ride_out(
            lambda: self._database.read(lambda connection: read(connection, offset, limit))
        )
        return EventBatch(self.topic, self.index, self.lane, offset, offset + len(events), tuple(events))

    async def wait(self, offset: int, timeout_s: float) -> None:
        """Return when there is a correction at `offset` or later, at the latest after `timeout_s`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        while True:
            mark = await self._outage.ride_out(lambda: self._database.read(last))
            left_s = until - loop.time()
            if (mark is not None and mark.sequence >= offset) or left_s <= 0:
                return
            await asyncio.sleep(min(self._poll_s, left_s))


def read(connection: Connection, offset: int, limit: int) -> list[UsageEvent]:
    """Return at most `limit` corrections from the sequence `offset` on, in order."""
    rows = connection.execute(_ROWS.where(CORRECTION.c.sequence >= offset).order_by(CORRECTION.c.sequence).limit(limit))
    return [_event(row) for row in rows]


def unsent(connection: Connection, sent: int, limit: int) -> list[tuple[UsageEvent, str]]:
    """Return at most `limit` corrections after the sequence `sent`, each with the group that its topic's key names.

    That is the key of the event it corrects, so that both come in one order; its own group, where the ledger no longer
    has that event.
    """
    found = []
    for correction in read(connection, sent + 1, limit):
        event = events.find(connection, correction.corrects or "")
        charged = event.charged_groups if event is not None else ()
        found.append((correction, charged[-1] if charged else correction.group_id))
    return found


def take_back(connection: Connection) -> int:
    """Put those into the outbox that the ledger alone has, after a restore; return how many. The next is behind them.

    Where the database never had one, whoever makes the next begins a new instance.
    """
    kept = connection.execute(select(CORRECTION_COUNTER)).one_or_none()
    if kept is None:
        return 0
    lost = events.behind(connection, Producer.model_construct(instance=kept.instance, sequence=kept.sequence))
    for event in lost:
        draft = UsageDraft(**event.model_dump(exclude={"producer"}))
        connection.execute(insert(CORRECTION).values(_row(event.producer.sequence, draft, event.timestamp)))
        connection.execute(update(CORRECTION_COUNTER).values(sequence=event.producer.sequence))
    return len(lost)


def taken(connection: Connection) -> int:
    """Return up to which sequence both readers of the outbox have it, where they follow it in the same database."""
    place = (TOPIC, Outbox.index)
    return min((position(connection, *place) or 1) - 1 for position in (positions.position, deliveries.position))


def forget(connection: Connection, before: datetime, up_to: int, limit: int) -> int:
    """Remove at most `limit` corrections made before `before`, of those up to the sequence `up_to`; return how many."""
    columns = CORRECTION.c
    old = select(columns.sequence).where(columns.created_at < before, columns.sequence <= up_to)
    some = old.order_by(columns.sequence).limit(limit)
    return connection.execute(delete(CORRECTION).where(columns.sequence.in_(some))).rowcount


def newest(connection: Connection) -> datetime | None:
    """Return when the newest correction was made."""
    return connection.execute(select(func.max(CORRECTION.c.created_at))).scalar_one_or_none()


def last(connection: Connection) -> Producer | None:
    """Return the database's own instance and the newest sequence; None where there never was a correction."""
    row = connection.execute(select(CORRECTION_COUNTER).where(CORRECTION_COUNTER.c.sequence >= 1)).one_or_none()
    return None if row is None else Producer(instance=row.instance, sequence=row.sequence)


def corrected(connection: Connection, idempotency_keys: list[str]) -> Mapping[str, Tokens]:
    """Sum the corrections of each of these events; those that have none are left out."""
    columns = CORRECTION.c
    sums = select(columns.corrects, func.sum(columns.input_tokens), func.sum(columns.output_tokens))
    return {
        key: Tokens(input_tokens=int(prompt), output_tokens=int(completion))
        for some in statements.chunks(idempotency_keys)
        for key, prompt, completion in connection.execute(
            sums.where(columns.corrects.in_(some)).group_by(columns.corrects)
        )
    }


def _row(sequence: int, draft: UsageDraft, made_at: datetime) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "idempotency_key": draft.idempotency_key,
        "corrects": draft.corrects,
        "input_tokens": draft.tokens.input_tokens,
        "output_tokens": draft.tokens.output_tokens,
        "event": draft.model_dump(mode="json"),
        "created_at": made_at,
    }


def _event(row: Row[Any, Any, Any]) -> UsageEvent:
    producer = {"instance": row.instance, "sequence": row.sequence}
    return UsageEvent.model_validate({**row.event, "producer": producer})
