"""Puts deliveries that have ended back to `pending`, on request and by itself, at a bounded rate (contract 2.5 and 5).

Never changes a delivery's bytes or id, never touches one that is pending, and never begins one that a probe has.

A redrive plans a moment for each delivery, behind those that were planned before it: that is what its lab is shown.
The rate itself is kept where they are claimed (`webhooks.store.claims`), by all dispatchers together and over
restarts, also once moments have passed unused because the receiver was held or disabled or no dispatcher was there.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, func, select, update

from webhooks.core import pace
from webhooks.core.deliveries import Queue, Status
from webhooks.core.health import Rule
from webhooks.store import receivers
from webhooks.store.tables import DELIVERY, PENDING

STEP = 500
"""The most that one call puts back: far below what a transaction's bound allows."""

_COLUMNS = DELIVERY.c
_ENDED = (Status.DEAD.value, Status.NOT_DUE.value)


def redeliver(connection: Connection, workspace_id: str, delivery_id: str, now: datetime) -> bool:
    """Put one delivery back, due now, whatever its status; return whether the workspace has it.

    A delivered one is delivered again: its receiver may have lost it. One whose attempt is under way stays as it is. A
    receiver that is held is probed now.
    """
    found = (_COLUMNS.workspace_id == workspace_id) & (_COLUMNS.id == delivery_id)
    row = connection.execute(select(DELIVERY).where(found).with_for_update()).one_or_none()
    if row is None:
        return False
    if row.status != Status.PENDING or row.claim is None or row.claimable_at <= now:
        _put_back(connection, [row], [now], Queue.FIRST)
    receivers.probe_soon(connection, workspace_id, now)
    return True


def redrive(
    connection: Connection,
    workspace_id: str,
    now: datetime,
    per_s: float,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = STEP,
) -> int:
    """Put dead letters and `not_due` deliveries back, the longest ended first, `per_s` a second; return how many.

    `since` (inclusive) and `until` (exclusive) bound when they were given up or put aside. Where it gives `limit` there
    may be more: call it again, in a transaction of its own, with an `until` at or before the first call's `now`, or
    what fails meanwhile is put back without end.
    """
    bounds = _ended(since, until)
    count = _put_back_some(connection, _oldest(workspace_id, bounds, limit), workspace_id, now, per_s)
    receivers.probe_soon(connection, workspace_id, now)
    return count


def count(connection: Connection, workspace_id: str, since: datetime | None, until: datetime | None) -> int:
    """Return how many deliveries `redrive` would put back of the same window."""
    ended = select(func.count()).select_from(DELIVERY).where(_COLUMNS.workspace_id == workspace_id)
    return connection.execute(ended.where(*_ended(since, until))).scalar_one()


def redrive_returned(connection: Connection, now: datetime, rule: Rule, limit: int = STEP) -> int | None:
    """Put back dead letters of one receiver that is back; return how many, None where none is to be done now.

    Any number of dispatchers may call it at once: each takes another receiver.
    """
    workspace_id = receivers.next_redrive(connection, now)
    if workspace_id is None:
        return None
    since = rule.since(now)
    lost = (
        _COLUMNS.status == Status.DEAD.value,
        _COLUMNS.settled_at >= since,  # for its index: none is before the first death
        _COLUMNS.first_died_at >= since,
    )
    query = _oldest(workspace_id, (*lost, _COLUMNS.redrive_after <= now), limit)
    count = _put_back_some(connection, query, workspace_id, now, rule.redrive_per_s)
    if count < limit:
        later = select(func.min(_COLUMNS.redrive_after)).where(_COLUMNS.workspace_id == workspace_id, *lost)
        at = connection.execute(later.where(_COLUMNS.redrive_after > now)).scalar_one()
        receivers.redrive_next(connection, workspace_id, at)
    return count


def _ended(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    bounds: list[ColumnElement[bool]] = [_COLUMNS.status.in_(_ENDED)]
    bounds += [] if since is None else [_COLUMNS.settled_at >= since]
    return bounds + ([] if until is None else [_COLUMNS.settled_at < until])


def _oldest(workspace_id: str, bounds: Sequence[ColumnElement[bool]], limit: int) -> Select[Any]:
    found = select(DELIVERY).where(_COLUMNS.workspace_id == workspace_id, *bounds)
    return found.order_by(_COLUMNS.settled_at, _COLUMNS.id).limit(limit).with_for_update(skip_locked=True)


def _put_back_some(connection: Connection, query: Select[Any], workspace_id: str, now: datetime, per_s: float) -> int:
    rows = connection.execute(query).all()
    planned = (
        select(_COLUMNS.claimable_at)
        .where(
            PENDING,
            _COLUMNS.workspace_id == workspace_id,
            _COLUMNS.queue == Queue.REDRIVEN.value,
            _COLUMNS.claim.is_(None),
        )
        .order_by(_COLUMNS.claimable_at.desc())
        .limit(1)
    )
    busy_until = connection.execute(planned).scalar_one_or_none()
    _put_back(connection, rows, pace.spread(now, busy_until, len(rows), per_s), Queue.REDRIVEN)
    return len(rows)


_AGAIN = (
    update(DELIVERY)
    .where(_COLUMNS.id == bindparam("of_id"))
    .values(
        status=Status.PENDING.value,
        reason=None,
        settled_at=None,
        redrive_after=None,
        run_attempts=0,
        queue=bindparam("new_queue"),
        first_attempt_at=None,
        next_attempt_at=bindparam("new_next_attempt_at"),
        claimable_at=bindparam("new_claimable_at"),
    )
)


def _put_back(connection: Connection, rows: Sequence[Row[Any]], moments: Sequence[datetime], queue: Queue) -> None:
    """Begin a new run of each at its moment, or when the lease of a probe that it is has ended."""
    if rows:
        connection.execute(
            _AGAIN,
            [
                {
                    "of_id": row.id,
                    "new_queue": queue.value,
                    "new_next_attempt_at": moment,
                    "new_claimable_at": moment if row.claim is None else max(moment, row.claimable_at or moment),
                }
                for row, moment in zip(rows, moments, strict=True)
            ],
        )
