"""Splits a delivery whose body is too large for its receiver into deliveries of one event each (contract 5).

Each of these has the event's bytes as they were frozen, the time that the whole was made, and its attempts, so none is
forgotten; the whole is gone. Its events were known before and stay so.
"""

import uuid
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from webhooks.core.deliveries import Status
from webhooks.store.tables import ATTEMPT, DELIVERY, DELIVERY_EVENT

_END = b"]}}"
_ATTEMPT = [column.name for column in ATTEMPT.columns if column.name != "delivery_id"]


class _Data(msgspec.Struct):
    events: list[msgspec.Raw]


class _Body(msgspec.Struct):
    data: _Data


class _Event(msgspec.Struct, rename="camel"):
    idempotency_key: str
    timestamp: datetime


_OWNED = (
    update(DELIVERY_EVENT)
    .where(
        DELIVERY_EVENT.c.day == bindparam("of_day"),
        DELIVERY_EVENT.c.workspace_id == bindparam("of_workspace_id"),
        DELIVERY_EVENT.c.idempotency_key == bindparam("of_key"),
    )
    .values(delivery_id=bindparam("new_delivery_id"))
)


def split(connection: Connection, row: Row[Any], now: datetime) -> None:
    """Put deliveries of one event, due `now`, in the place of `row`, which its caller has locked."""
    start = row.body[: row.body.index(b"[") + 1]
    parts = [(_part_of(row.id, raw), bytes(raw)) for raw in msgspec.json.decode(row.body, type=_Body).data.events]
    connection.execute(insert(DELIVERY), [_delivery(row, part[0], start + raw + _END, now) for part, raw in parts])
    connection.execute(
        _OWNED,
        [
            {"of_day": day, "of_workspace_id": row.workspace_id, "of_key": key, "new_delivery_id": delivery_id}
            for (delivery_id, key, day), _ in parts
        ],
    )
    _pass_on_attempts(connection, row.id, [delivery_id for (delivery_id, _, _), _ in parts])
    connection.execute(delete(DELIVERY).where(DELIVERY.c.id == row.id))


def _part_of(whole_id: str, raw: msgspec.Raw) -> tuple[str, str, date]:
    """Return the id of an event's own delivery, the same however often it is asked, its key and its UTC day."""
    event = msgspec.json.decode(raw, type=_Event)
    delivery_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{whole_id}/{event.idempotency_key}"))
    return delivery_id, event.idempotency_key, event.timestamp.date()


def _delivery(row: Row[Any], delivery_id: str, body: bytes, now: datetime) -> dict[str, Any]:
    return {
        "id": delivery_id,
        "workspace_id": row.workspace_id,
        "status": Status.PENDING.value,
        "body": body,
        "event_count": 1,
        "created_at": row.created_at,
        "attempt_count": row.attempt_count + 1,
        "next_attempt_at": now,
        "claimable_at": now,
    }


def _pass_on_attempts(connection: Connection, whole_id: str, delivery_ids: Sequence[str]) -> None:
    whole = ATTEMPT.c.delivery_id == whole_id
    made = [row._asdict() for row in connection.execute(select(*(ATTEMPT.c[name] for name in _ATTEMPT)).where(whole))]
    connection.execute(delete(ATTEMPT).where(whole))
    connection.execute(insert(ATTEMPT), [{"delivery_id": one, **attempt} for one in delivery_ids for attempt in made])
