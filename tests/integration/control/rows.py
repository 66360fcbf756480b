"""Deliveries as the dispatcher leaves them in its table."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert, select

from runtime.database.engines import Database
from tests.unit.webhooks import kit
from webhooks.store.tables import DELIVERY


def row(workspace_id: str, name: str, status: str, *, made_s: float, ended_s: float | None = None) -> dict[str, Any]:
    ended = None if ended_s is None else kit.after(ended_s)
    due = kit.after(made_s) if status == "pending" else None
    return {
        "id": name,
        "workspace_id": workspace_id,
        "status": status,
        "reason": "answered 410" if status == "dead" else None,
        "body": b"{}",
        "event_count": 3,
        "created_at": kit.after(made_s),
        "settled_at": ended,
        "attempt_count": 0,
        "run_attempts": 0,
        "queue": "first",
        "first_attempt_at": None,
        "next_attempt_at": due,
        "claimable_at": due,
    }


def keep(database: Database, *rows: dict[str, Any]) -> None:
    database.write_now(lambda connection: connection.execute(insert(DELIVERY), list(rows)))


def statuses(database: Database, *, among: Sequence[str] | None = None) -> dict[str, str]:
    query = select(DELIVERY.c.id, DELIVERY.c.status)
    rows = database.read_now(lambda connection: connection.execute(query).all())
    return {row.id: row.status for row in rows if among is None or row.id in among}
