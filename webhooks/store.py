"""Deliveries, their events, their attempts and the position of intake: all SQL on the tables of the dispatcher.

Never changes a delivery's bytes once they are written, and never removes a dead letter here.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
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

from metering.core import position as positions
from metering.core import rollup
from runtime import ids, statements
from runtime.database import Database
from schemas.topics import UsageBatch
from webhooks.core import batching
from webhooks.core.retry import Delivered, GiveUp, RetryAt
from webhooks.core.values import Claim, Draft, Settlement, Share, Status, Waiting
from webhooks.tables import ATTEMPT, DELIVERY, DELIVERY_EVENT, WEBHOOK_POSITION

LEASE_S = 30
"""How long a claim holds. Longer than any attempt, so that a claim only runs out when its dispatcher went away."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over the events of one workspace and UTC day in deliveries of one status; corrections are among them."""

    workspace_id: str
    day: date
    status: Status
    events: int
    input_tokens: int
    output_tokens: int


class StoredDeliveries:
    """The `Deliveries` port on the database: each call is one transaction."""

    def __init__(self, database: Database, lease_s: float = LEASE_S) -> None:
        self._database = database
        self._lease = timedelta(seconds=lease_s)

    async def enqueue(self, drafts: Sequence[Draft], batch: UsageBatch, now: datetime) -> None:
        """Keep what is new and move the position. Raises PositionLostError."""
        await self._database.write(lambda connection: enqueue(connection, drafts, batch, now))

    async def waiting(self) -> Sequence[Waiting]:
        """Give the lanes that have pending deliveries."""
        return await self._database.read(waiting)

    async def claim(self, shares: Sequence[Share], now: datetime) -> Sequence[Claim]:
        """Claim what is due, at most the shares."""
        return await self._database.write(lambda connection: claim(connection, shares, now, self._lease))

    async def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Write attempts and decisions."""
        await self._database.write(lambda connection: settle(connection, settlements, now))


def position(connection: Connection, topic: str, partition: int) -> int | None:
    """Give the committed next offset; None where nothing of the partition was taken in yet."""
    columns = WEBHOOK_POSITION.c
    offset: int | None = connection.execute(
        select(columns.next_offset).where(columns.topic == topic, columns.partition == partition)
    ).scalar_one_or_none()
    return offset


def enqueue(connection: Connection, drafts: Sequence[Draft], batch: UsageBatch, now: datetime) -> int:
    """Move the position over `batch` and keep what `drafts` hold that is new; give how many deliveries that made.

    Raises PositionLostError where the stored position is not the batch's first offset: another worker moved it.
    """
    _move_position(connection, batch)
    new = _insert_events(connection, drafts)
    rows = []
    for draft in drafts:
        events = [event for event in draft.events if (draft.id, event.idempotency_key) in new]
        if events:
            pending_at = now if draft.status is Status.PENDING else None
            rows.append(
                {
                    "id": draft.id,
                    "workspace_id": draft.workspace_id,
                    "status": draft.status.value,
                    "body": batching.freeze(events),
                    "event_count": len(events),
                    "created_at": now,
                    "next_attempt_at": pending_at,
                    "claimable_at": pending_at,
                }
            )
    if rows:
        connection.execute(insert(DELIVERY), rows)
    return len(rows)


def waiting(connection: Connection) -> list[Waiting]:
    """Give each lane that has pending deliveries. Jumps from workspace to workspace in the index, never over rows."""
    column = DELIVERY.c
    pending = column.status == Status.PENDING.value
    found = select(func.min(column.workspace_id).label("workspace_id")).where(pending).cte("found", recursive=True)
    beyond = select(func.min(column.workspace_id)).where(pending, column.workspace_id > found.c.workspace_id)
    found = found.union_all(select(beyond.scalar_subquery()).where(found.c.workspace_id.is_not(None)))
    earliest = [
        select(func.min(column.claimable_at))
        .where(pending, column.workspace_id == found.c.workspace_id, column.retrying.is_(retrying))
        .scalar_subquery()
        for retrying in (False, True)
    ]
    rows = connection.execute(select(found.c.workspace_id, *earliest).where(found.c.workspace_id.is_not(None)))
    return [
        Waiting(workspace_id, retrying, due_at)
        for workspace_id, *dues in rows
        for retrying, due_at in zip((False, True), dues, strict=True)
        if due_at is not None
    ]


def claim(connection: Connection, shares: Sequence[Share], now: datetime, lease: timedelta) -> list[Claim]:
    """Claim until `now + lease` what is due, the longest due first, at most the shares. Starts the clock of a run."""
    token = ids.mint()
    rows = [row for share in shares for row in _due(connection, share, now)]
    if rows:
        column = DELIVERY.c
        connection.execute(
            update(DELIVERY)
            .where(column.id.in_([row.id for row in rows]))
            .values(claim=token, claimable_at=now + lease, first_attempt_at=func.coalesce(column.first_attempt_at, now))
        )
    return [
        Claim(
            delivery_id=row.id,
            token=token,
            workspace_id=row.workspace_id,
            body=row.body,
            retrying=row.retrying,
            attempt_number=row.run_attempts + 1,
            first_attempt_at=row.first_attempt_at or now,
            planned_at=row.next_attempt_at,
        )
        for row in rows
    ]


def free_claims(connection: Connection) -> int:
    """Free the claims of a dispatcher that is gone, for whoever knows that it is; give how many there were."""
    column = DELIVERY.c
    claimed = update(DELIVERY).where(column.status == Status.PENDING, column.claim.is_not(None))
    return connection.execute(claimed.values(claim=None, claimable_at=column.next_attempt_at)).rowcount


def settle(connection: Connection, settlements: Sequence[Settlement], now: datetime) -> None:
    """Write attempts and decisions. A claim that is no longer the delivery's own changes nothing, unless it delivered.

    So it may be repeated after an error that left open whether it was committed.
    """
    column = DELIVERY.c
    wanted = [settlement.claim.delivery_id for settlement in settlements]
    found = select(DELIVERY).where(column.id.in_(wanted)).with_for_update()
    rows = {row.id: row for row in connection.execute(found)}
    attempts = []
    for settlement in settlements:
        row = rows.get(settlement.claim.delivery_id)
        if row is None or not _still_counts(row, settlement):
            continue
        if settlement.attempt is not None:
            attempts.append({"delivery_id": row.id, "number": row.attempt_count + 1, **asdict(settlement.attempt)})
        connection.execute(
            update(DELIVERY).where(column.id == bindparam("delivery_id")),
            {"delivery_id": row.id, **_settled(row, settlement, now)},
        )
    if attempts:
        connection.execute(insert(ATTEMPT), attempts)


def tallies(connection: Connection, from_day: date, to_day: date, among: Select[Any] | None = None) -> list[Tally]:
    """Sum per workspace, day and status, both days inclusive; of all, or of the (workspace, key) pairs of `among`."""
    event = DELIVERY_EVENT.c
    owner = (event.workspace_id, event.day, DELIVERY.c.status)
    sums = (func.count(), func.sum(event.input_tokens), func.sum(event.output_tokens))
    query = select(*owner, *sums).join(DELIVERY, event.delivery_id == DELIVERY.c.id).group_by(*owner).order_by(*owner)
    if among is not None:
        query = query.where(tuple_(event.workspace_id, event.idempotency_key).in_(among))
    rows = connection.execute(query.where(event.day.between(from_day, to_day)))
    return [Tally(workspace, day, Status(status), *map(int, sums)) for workspace, day, status, *sums in rows]


def _move_position(connection: Connection, batch: UsageBatch) -> None:
    columns = WEBHOOK_POSITION.c
    moved = connection.execute(
        update(WEBHOOK_POSITION)
        .where(
            columns.topic == batch.topic,
            columns.partition == batch.partition,
            columns.next_offset == batch.first_offset,
        )
        .values(next_offset=batch.next_offset)
    )
    if moved.rowcount == 0:
        first = statements.insert_into(connection.dialect.name, WEBHOOK_POSITION).on_conflict_do_nothing()
        values = {"topic": batch.topic, "partition": batch.partition, "next_offset": batch.next_offset}
        # RETURNING, because not every driver counts the rows of an INSERT
        if connection.execute(first.returning(columns.partition), values).first() is None:
            raise positions.PositionLostError(batch)


def _insert_events(connection: Connection, drafts: Sequence[Draft]) -> set[tuple[str, str]]:
    """Insert each draft's events; give (delivery id, key) of those whose key was new in their workspace."""
    rows = [
        {
            "workspace_id": draft.workspace_id,
            "idempotency_key": event.idempotency_key,
            "delivery_id": draft.id,
            "day": rollup.day_of(event),
            "input_tokens": event.tokens.input_tokens,
            "output_tokens": event.tokens.output_tokens,
        }
        for draft in drafts
        for event in draft.events
    ]
    if not rows:
        return set()
    statement = statements.insert_into(connection.dialect.name, DELIVERY_EVENT).on_conflict_do_nothing()
    columns = DELIVERY_EVENT.c
    new = connection.execute(statement.returning(columns.delivery_id, columns.idempotency_key), rows)
    return {(row.delivery_id, row.idempotency_key) for row in new}


def _due(connection: Connection, share: Share, now: datetime) -> Sequence[Row[Any]]:
    column = DELIVERY.c
    return connection.execute(
        select(DELIVERY)
        .where(
            column.status == Status.PENDING.value,
            column.workspace_id == share.workspace_id,
            column.retrying.is_(share.retrying),
            column.claimable_at <= now,
        )
        .order_by(column.claimable_at)
        .limit(share.count)
        .with_for_update(skip_locked=True)
    ).all()


def _still_counts(row: Row[Any], settlement: Settlement) -> bool:
    if isinstance(settlement.decision, Delivered):
        return bool(row.status != Status.DELIVERED.value)
    return bool(row.claim == settlement.claim.token)


def _settled(row: Row[Any], settlement: Settlement, now: datetime) -> dict[str, Any]:
    """Give the delivery's new columns."""
    counted = {"claim": None, "attempt_count": row.attempt_count + 1, "run_attempts": row.run_attempts + 1}
    ended = {**counted, "settled_at": now, "next_attempt_at": None, "claimable_at": None}
    match settlement.decision:
        case Delivered():
            return {**ended, "status": Status.DELIVERED.value, "reason": None}
        case GiveUp(reason):
            return {**ended, "status": Status.DEAD.value, "reason": reason}
        case RetryAt(when):
            return {**counted, "retrying": True, "next_attempt_at": when, "claimable_at": when}
        case _:
            first_attempt_at = row.first_attempt_at if row.run_attempts else None
            return {"claim": None, "claimable_at": row.next_attempt_at, "first_attempt_at": first_attempt_at}
