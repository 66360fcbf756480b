"""Puts deliveries that have ended back to `pending`, on request and by itself, at a bounded rate (contract 2.5 and 5).

Never changes a delivery's bytes or id, and never begins one that a probe has.

A redrive plans a moment for each delivery, behind those that were planned before it: that is what its lab is shown.
The rate itself is kept where they are claimed (`webhooks.store.claims`), by all dispatchers together and over
restarts, also once moments have passed unused because the receiver was held or disabled or no dispatcher was there.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
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


def bring_forward(connection: Connection, now: datetime, longest: timedelta, per_s: float, limit: int = STEP) -> int:
    """Bring to now what waits longer than any rule allows, as after a clock that ran ahead; return how many.

    `longest` is what a first attempt, a retry or a claim may lie ahead at most. Redriven deliveries are planned one
    behind the other, `per_s` a second, so one may lie ahead by as much more as there are before it. Each begins a new
    run: its clock had started in a time that did not come yet. Where it gives `limit` or more there may be others.
    """
    far = PENDING & (_COLUMNS.claimable_at > now + longest)
    connection.execute(update(DELIVERY).where(far, _COLUMNS.claim.is_not(None)).values(claim=None))
    is_redriven = _COLUMNS.queue == Queue.REDRIVEN.value
    rows = connection.execute(_first(select(DELIVERY).where(far, ~is_redriven), limit)).all()
    _put_back(connection, rows, [now] * len(rows), Queue.FIRST)
    count = len(rows)
    several = select(_COLUMNS.workspace_id, func.count()).where(PENDING, is_redriven).group_by(_COLUMNS.workspace_id)
    for workspace_id, waiting in connection.execute(several.having(func.max(_COLUMNS.claimable_at) > now + longest)):
        bound = now + longest + timedelta(seconds=waiting / per_s)
        own = PENDING & is_redriven & (_COLUMNS.workspace_id == workspace_id)
        rows = connection.execute(_first(select(DELIVERY).where(own, _COLUMNS.claimable_at > bound), limit)).all()
        planned = select(func.max(_COLUMNS.claimable_at)).where(own, _COLUMNS.claimable_at <= bound)
        busy_until = connection.execute(planned).scalar_one()
        _put_back(connection, rows, pace.spread(now, busy_until, len(rows), per_s), Queue.REDRIVEN)
        count += len(rows)
    receivers.bring_forward(connection, now, longest)
    return count


def _first(query: Select[Any], limit: int) -> Select[Any]:
    ordered = query.order_by(_COLUMNS.workspace_id, _COLUMNS.claimable_at, _COLUMNS.id)
    return ordered.limit(limit).with_for_update(skip_locked=True)


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
