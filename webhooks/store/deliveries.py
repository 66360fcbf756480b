"""What intake and dispatch ask of the database: deliveries, their events and attempts, the position of intake.

A delivery's bytes stay as they were written.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from domain import days
from domain.positions import PositionLostError
from domain.sources import EventBatch
from runtime.database import positions, sqlite_rows, statements
from runtime.database.engines import Database
from schemas.spooled import AnyEvent
from webhooks.core import batching
from webhooks.core.deliveries import AlertDraft, Claim, ClaimEnd, Draft, Queue, Share, Status, WaitingQueue
from webhooks.core.health import Rule
from webhooks.core.retry import Delivered, GiveUp, Leave, RetryAt, Split
from webhooks.store import claims, receivers, split
from webhooks.store.tables import ATTEMPT, DELIVERY, DELIVERY_EVENT, WEBHOOK_POSITION

LEASE_S = 30
"""How long a claim holds. Longer than any attempt, so that a claim only runs out when its dispatcher went away."""


@dataclass(frozen=True, slots=True)
class DeliveryTally:
    """Sums over the events of one workspace and UTC day in deliveries of one status; corrections are among them."""

    workspace_id: str
    day: date
    status: Status
    events: int
    input_tokens: int
    output_tokens: int


class StoredDeliveries:
    """The `Deliveries` port on the database: each call is one transaction."""

    def __init__(self, database: Database, lease_s: float = LEASE_S, rule: Rule | None = None) -> None:
        self._database = database
        self._lease = timedelta(seconds=lease_s)
        self._rule = rule or Rule()

    async def enqueue(self, drafts: Sequence[Draft], batches: Sequence[EventBatch], now: datetime) -> None:
        """Keep what is new and move the positions. Raise PositionLostError."""
        await self._database.write(lambda connection: enqueue(connection, drafts, batches, now))

    async def position(self, topic: str, partition: int) -> int | None:
        """Return the next offset to take in."""
        return await self._database.read(lambda connection: position(connection, topic, partition))

    async def waiting(self) -> Sequence[WaitingQueue]:
        """Return the queues that have something to claim."""
        return await self._database.read(claims.waiting)

    async def claim(self, shares: Sequence[Share], now: datetime, *, takes_over: bool = True) -> Sequence[Claim]:
        """Claim what is due, at most the shares."""
        lease, rule = self._lease, self._rule
        return await self._database.write(
            lambda connection: claims.claim(connection, shares, now, lease, rule, takes_over=takes_over)
        )

    async def finish(self, ends: Sequence[ClaimEnd], now: datetime) -> None:
        """Write attempts and decisions."""
        await self._database.write(lambda connection: finish(connection, ends, now, self._rule))


def position(connection: Connection, topic: str, partition: int) -> int | None:
    """Return the committed next offset; None where nothing of the partition was taken in yet."""
    columns = WEBHOOK_POSITION.c
    offset: int | None = connection.execute(
        select(columns.next_offset).where(columns.topic == topic, columns.partition == partition)
    ).scalar_one_or_none()
    return offset


def enqueue(connection: Connection, drafts: Sequence[Draft], batches: Sequence[EventBatch], now: datetime) -> int:
    """Move the positions over `batches` and keep what `drafts` hold that is new; return how many deliveries that made.

    Raise PositionLostError where a stored position is not its batch's first offset: another worker moved it.
    """
    for batch in sorted(batches, key=lambda batch: batch.source):  # two workers wait in one order
        _move_position(connection, batch)
    new = _insert_events(connection, drafts)
    rows = []
    for draft in drafts:
        events = [billed for billed in draft.events if (draft.id, billed.event.idempotency_key) in new]
        if events:
            traces = [one.event.traceparent for one in events if one.event.traceparent]
            rows.append(delivery_row(draft, batching.freeze(events), len(events), now) | {"traces": traces or None})
    if rows:
        connection.execute(insert(DELIVERY), rows)
    return len(rows)


def delivery_row(draft: Draft | AlertDraft, body: bytes, event_count: int, now: datetime) -> dict[str, Any]:
    """Return a new delivery as it is kept: due now, or put aside."""
    pending_at = now if draft.status is Status.PENDING else None
    return {
        "id": draft.id,
        "workspace_id": draft.workspace_id,
        "status": draft.status.value,
        "body": body,
        "event_count": event_count,
        "created_at": now,
        "settled_at": None if pending_at else now,
        "next_attempt_at": pending_at,
        "claimable_at": pending_at,
    }


def finish(connection: Connection, ends: Sequence[ClaimEnd], now: datetime, rule: Rule) -> None:
    """Write attempts and decisions, and what they say of their receivers.

    A claim that is no longer the delivery's own changes nothing, unless it delivered. So it may be repeated after an
    error that left open whether it was committed.
    """
    column = DELIVERY.c
    wanted = [end.claim.delivery_id for end in ends]
    # In one order, so that two dispatchers that finish the same deliveries wait for each other, never in a circle.
    found = select(DELIVERY).where(column.id.in_(wanted)).order_by(column.id).with_for_update()
    rows = {row.id: row for row in connection.execute(found)}
    counted = []
    for end in ends:
        row = rows.pop(end.claim.delivery_id, None)
        if row is not None and _still_counts(row, end):
            counted.append((row, end))
    if not counted:
        return
    changed = [{"of_id": row.id, **_changes(row, end, now, rule)} for row, end in counted]
    connection.execute(_FINISH, changed)
    attempts = [
        {"delivery_id": row.id, "number": row.attempt_count + 1, **asdict(end.attempt)}
        for row, end in counted
        if end.attempt is not None
    ]
    if attempts:
        connection.execute(insert(ATTEMPT), attempts)
    for row, end in counted:
        if isinstance(end.decision, Split):
            split.split(connection, row, now)
    receivers.note(connection, [(row.workspace_id, one.decision) for row, one in counted], now, rule)


def tallies(
    connection: Connection, from_day: date, to_day: date, among: Select[Any] | None = None
) -> list[DeliveryTally]:
    """Sum per workspace, day and status, both days inclusive; of all, or of the (workspace, key) pairs of `among`."""
    event = DELIVERY_EVENT.c
    owner = (event.workspace_id, event.day, DELIVERY.c.status)
    sums = (func.count(), func.sum(event.input_tokens), func.sum(event.output_tokens))
    query = select(*owner, *sums).join(DELIVERY, event.delivery_id == DELIVERY.c.id).group_by(*owner).order_by(*owner)
    if among is not None:
        query = query.where(tuple_(event.workspace_id, event.idempotency_key).in_(among))
    rows = connection.execute(query.where(event.day.between(from_day, to_day)))
    return [DeliveryTally(workspace, day, Status(status), *map(int, sums)) for workspace, day, status, *sums in rows]


def _move_position(connection: Connection, batch: EventBatch) -> None:
    for at in (batch.first_offset, None):  # None: nothing of the partition was taken in yet
        if positions.move(connection, WEBHOOK_POSITION, batch.source, at, next_offset=batch.next_offset):
            return
    raise PositionLostError(batch)


def _insert_events(connection: Connection, drafts: Sequence[Draft]) -> set[tuple[str, str]]:
    """Insert each draft's events; return (delivery id, key) of those whose key was new in their workspace."""
    rows = [_event_row(draft, billed.event) for draft in drafts for billed in draft.events]
    if not rows:
        return set()
    at_once = connection.dialect.name == "postgresql"
    if not at_once and sqlite_rows.insert(connection, DELIVERY_EVENT, [(row[0].isoformat(), *row[1:]) for row in rows]):
        return {(row[3], row[2]) for row in rows}
    engine = connection.dialect.name
    new = connection.execute(_inserting_events(engine), statements.given(engine, DELIVERY_EVENT, rows))
    return {(row.delivery_id, row.idempotency_key) for row in new}


def _event_row(draft: Draft, event: AnyEvent) -> tuple[date, str, str, str, int, int]:
    """Return an event's values in the order of the table's columns."""
    tokens = event.tokens
    key = event.idempotency_key
    return days.day_of(event), draft.workspace_id, key, draft.id, tokens.input_tokens, tokens.output_tokens


# Building a statement costs as much as running it on a small batch.
@cache
def _inserting_events(engine: str) -> ReturningInsert[Any]:
    columns = DELIVERY_EVENT.c
    statement = statements.insert_all(engine, DELIVERY_EVENT).on_conflict_do_nothing()
    return statement.returning(columns.delivery_id, columns.idempotency_key)


def _still_counts(row: Row[Any], end: ClaimEnd) -> bool:
    if isinstance(end.decision, Delivered):
        return bool(row.status != Status.DELIVERED.value)
    return bool(row.claim == end.claim.token)


_KEPT = (
    *("status", "reason", "run_attempts", "queue", "first_attempt_at", "settled_at", "next_attempt_at"),
    *("first_died_at", "redrive_after"),
)
_CHANGED = (*_KEPT, "attempt_count", "claim", "claimable_at")
_FINISH = (
    update(DELIVERY)
    .where(DELIVERY.c.id == bindparam("of_id"))
    .values({name: bindparam(f"new_{name}") for name in _CHANGED})
)


def _changes(row: Row[Any], end: ClaimEnd, now: datetime, rule: Rule) -> dict[str, Any]:
    """Return the parameters of _FINISH."""
    values = {name: getattr(row, name) for name in _KEPT}
    values |= {"claim": None, "attempt_count": row.attempt_count + (end.attempt is not None)}
    ended = {"settled_at": now, "next_attempt_at": None, "run_attempts": row.run_attempts + 1}
    match end.decision:
        case Delivered():
            values |= {**ended, "status": Status.DELIVERED.value, "reason": None, "first_died_at": None}
        case GiveUp(reason, refused):
            first_died_at = row.first_died_at or now
            redrive_after = None if refused else rule.redrive_after(first_died_at, now)
            values |= {**ended, "status": Status.DEAD.value, "reason": reason}
            values |= {"first_died_at": first_died_at, "redrive_after": redrive_after}
        case RetryAt(when):
            values |= {"run_attempts": row.run_attempts + 1, "queue": Queue.RETRY.value, "next_attempt_at": when}
        case Leave() | Split():
            pass
        case _:
            values["first_attempt_at"] = row.first_attempt_at if row.run_attempts else None
    values["claimable_at"] = values["next_attempt_at"]
    return {f"new_{name}": value for name, value in values.items()}
