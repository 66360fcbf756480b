"""Which deliveries wait and who may attempt them: all claims, on the table of deliveries.

Never gives a delivery to two dispatchers at once: a claim holds until it is finished or its lease has ended.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, func, select, update

from runtime import ids
from webhooks.core.deliveries import Claim, Queue, Share, Status, WaitingQueue
from webhooks.core.health import Rule
from webhooks.store import receivers
from webhooks.store.tables import DELIVERY, PENDING

_COLUMNS = DELIVERY.c
_QUEUES = (Queue.FIRST, Queue.REDRIVEN, Queue.RETRY)


class _Mark(NamedTuple):
    """What all claims of one call have in common."""

    token: str
    claimed_at: datetime
    lease_ends_at: datetime


def waiting(connection: Connection) -> list[WaitingQueue]:
    """Return each queue that has something to claim. Jumps from workspace to workspace in the index, never over rows.

    First attempts at a receiver that is held wait; its probe is a queue, whether or not there is anything to try.
    """
    rows = connection.execute(_earliest())
    held, paced = receivers.held_and_paced(connection)
    queues = [
        WaitingQueue(
            workspace_id, queue, max(due_at, paced.get(workspace_id, due_at)) if queue is Queue.REDRIVEN else due_at
        )
        for workspace_id, *dues in rows
        for queue, due_at in zip(_QUEUES, dues, strict=True)
        if due_at is not None and (queue is Queue.RETRY or workspace_id not in held)
    ]
    return queues + [WaitingQueue(workspace_id, Queue.PROBE, probe_at) for workspace_id, probe_at in held.items()]


# Building the statement costs more than running it, which is done at each turn.
@cache
def _earliest() -> Select[Any]:
    found = select(func.min(_COLUMNS.workspace_id).label("workspace_id")).where(PENDING).cte("found", recursive=True)
    beyond = select(func.min(_COLUMNS.workspace_id)).where(PENDING, _COLUMNS.workspace_id > found.c.workspace_id)
    found = found.union_all(select(beyond.scalar_subquery()).where(found.c.workspace_id.is_not(None)))
    earliest = [
        select(func.min(_COLUMNS.claimable_at)).where(*_in(found.c.workspace_id, queue)).scalar_subquery()
        for queue in _QUEUES
    ]
    return select(found.c.workspace_id, *earliest).where(found.c.workspace_id.is_not(None))


def claim(
    connection: Connection,
    shares: Sequence[Share],
    now: datetime,
    lease: timedelta,
    rule: Rule,
    *,
    takes_over: bool = True,
) -> list[Claim]:
    """Claim until `now + lease` what is due, the longest due first, at most the shares. Starts the clock of a run.

    Unless it `takes_over`, what another has claimed stays that one's after its lease has ended.
    """
    free = [] if takes_over else [_COLUMNS.claim.is_(None)]
    probes: list[Row[Any]] = []
    found: list[Row[Any]] = []
    # By workspace, as everyone does who locks rows of several receivers: so nobody waits in a circle.
    for share in sorted(shares, key=lambda share: share.workspace_id):
        match share.queue:
            case Queue.PROBE:
                probes += _take_probe(connection, share.workspace_id, now, rule, free)
            case Queue.REDRIVEN:
                found += _take_redriven(connection, share, now, rule, free)
            case _:
                found += _due(connection, share, now, free)
    mark = _Mark(ids.mint(), now, now + lease)
    held = update(DELIVERY).values(claim=mark.token, claimable_at=mark.lease_ends_at)
    if probes:
        connection.execute(held.where(_COLUMNS.id.in_([row.id for row in probes])))
    if found:
        begun = held.values(first_attempt_at=func.coalesce(_COLUMNS.first_attempt_at, now))
        connection.execute(begun.where(_COLUMNS.id.in_([row.id for row in found])))
    return [
        *(_claim(row, Queue.PROBE, now, now, mark) for row in probes),
        *(_claim(row, Queue(row.queue), row.first_attempt_at or now, row.next_attempt_at, mark) for row in found),
    ]


def free_claims(connection: Connection) -> int:
    """Free the claims of a dispatcher that is gone, for whoever knows that it is; return how many there were."""
    claimed = update(DELIVERY).where(_COLUMNS.status.in_((Status.PENDING, Status.DEAD)), _COLUMNS.claim.is_not(None))
    return connection.execute(claimed.values(claim=None, claimable_at=_COLUMNS.next_attempt_at)).rowcount


def _in(workspace_id: Any, queue: Queue) -> tuple[ColumnElement[bool], ...]:
    return PENDING, _COLUMNS.workspace_id == workspace_id, _COLUMNS.queue == queue.value


def _due(
    connection: Connection, share: Share, now: datetime, free: Sequence[ColumnElement[bool]]
) -> Sequence[Row[Any]]:
    return connection.execute(
        select(DELIVERY)
        .where(*_in(share.workspace_id, share.queue), _COLUMNS.claimable_at <= now, *free)
        .order_by(_COLUMNS.claimable_at)
        .limit(share.count)
        .with_for_update(skip_locked=True)
    ).all()


def _take_redriven(
    connection: Connection, share: Share, now: datetime, rule: Rule, free: Sequence[ColumnElement[bool]]
) -> Sequence[Row[Any]]:
    """Return what of the share the rate allows now; none where another dispatcher has taken the step."""
    step = Share(share.workspace_id, share.queue, min(share.count, rule.redriven_at_once))
    rows = _due(connection, step, now, free)
    is_taken = bool(rows) and receivers.take_redriven(connection, share.workspace_id, now, rule, len(rows))
    return rows if is_taken else ()


def _take_probe(
    connection: Connection, workspace_id: str, now: datetime, rule: Rule, free: Sequence[ColumnElement[bool]]
) -> Sequence[Row[Any]]:
    """Return the delivery that is the probe: the oldest that waits, else the oldest dead letter, behind those that were
    refused; none where another dispatcher has taken the probe, or nothing is there to probe with."""
    passed = receivers.take_probe(connection, workspace_id, now, rule)
    if passed is None:
        return ()
    since = rule.since(now)  # `settled_at`, for its index: none is before the first death
    recent = (_COLUMNS.settled_at >= since) & (_COLUMNS.first_died_at >= since) & _COLUMNS.redrive_after.is_not(None)
    of_day = (_COLUMNS.workspace_id == workspace_id) & recent
    kinds = [
        select(_COLUMNS.id)
        .where(*_in(workspace_id, queue), _COLUMNS.claimable_at <= now, *free)
        .order_by(_COLUMNS.claimable_at, _COLUMNS.id)
        for queue in (Queue.FIRST, Queue.REDRIVEN)
    ]
    dead = select(_COLUMNS.id).where(_COLUMNS.status == Status.DEAD.value, of_day, *free)
    candidates: list[str] = []
    for kind in (*kinds, dead.order_by(_COLUMNS.settled_at, _COLUMNS.id)):
        if len(candidates) <= passed:
            candidates += connection.execute(kind.limit(passed + 1 - len(candidates))).scalars()
    if not candidates:
        return ()
    chosen = candidates[passed % len(candidates)]
    query = select(DELIVERY).where(_COLUMNS.id == chosen).with_for_update(skip_locked=True)
    return connection.execute(query).all()


def _claim(row: Row[Any], queue: Queue, first_attempt_at: datetime, planned_at: datetime, mark: _Mark) -> Claim:
    return Claim(
        delivery_id=row.id,
        token=mark.token,
        workspace_id=row.workspace_id,
        body=row.body,
        queue=queue,
        attempt_number=row.run_attempts + 1,
        first_attempt_at=first_attempt_at,
        planned_at=planned_at,
        claimed_at=mark.claimed_at,
        lease_ends_at=mark.lease_ends_at,
        event_count=row.event_count,
        was_lost=row.claim is not None,
        traces=tuple(row.traces or ()),
    )
