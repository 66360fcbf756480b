"""Which deliveries wait and who may attempt them: all claims, on the table of deliveries.

Never gives a delivery to two dispatchers at once: a claim holds until it is settled or its lease has ended.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from runtime import ids
from webhooks import standing
from webhooks.core.health import Rule
from webhooks.core.values import Claim, Queue, Share, Status, Waiting
from webhooks.tables import DELIVERY, PENDING


def waiting(connection: Connection) -> list[Waiting]:
    """Give each queue that has something to claim. Jumps from workspace to workspace in the index, never over rows.

    First attempts at a receiver that is held wait; its probe is a queue, whether or not there is anything to try.
    """
    column = DELIVERY.c
    found = select(func.min(column.workspace_id).label("workspace_id")).where(PENDING).cte("found", recursive=True)
    beyond = select(func.min(column.workspace_id)).where(PENDING, column.workspace_id > found.c.workspace_id)
    found = found.union_all(select(beyond.scalar_subquery()).where(found.c.workspace_id.is_not(None)))
    earliest = [
        select(func.min(column.claimable_at))
        .where(PENDING, column.workspace_id == found.c.workspace_id, column.retrying.is_(retrying))
        .scalar_subquery()
        for retrying in (False, True)
    ]
    rows = connection.execute(select(found.c.workspace_id, *earliest).where(found.c.workspace_id.is_not(None)))
    held = standing.held(connection)
    queues = [
        Waiting(workspace_id, queue, due_at)
        for workspace_id, *dues in rows
        for queue, due_at in zip((Queue.FIRST, Queue.RETRY), dues, strict=True)
        if due_at is not None and not (queue is Queue.FIRST and workspace_id in held)
    ]
    return queues + [Waiting(workspace_id, Queue.PROBE, probe_at) for workspace_id, probe_at in held.items()]


def claim(connection: Connection, shares: Sequence[Share], now: datetime, lease: timedelta, rule: Rule) -> list[Claim]:
    """Claim until `now + lease` what is due, the longest due first, at most the shares. Starts the clock of a run."""
    token = ids.mint()
    probes = [
        _claim(row, token, Queue.PROBE, now, now)
        for share in shares
        if share.queue is Queue.PROBE
        for row in _take_probe(connection, share, now, rule)
    ]
    others = [share for share in shares if share.queue is not Queue.PROBE]
    found = [(share.queue, row) for share in others for row in _due(connection, share, now)]
    column = DELIVERY.c
    held = update(DELIVERY).values(claim=token, claimable_at=now + lease)
    if probes:
        connection.execute(held.where(column.id.in_([one.delivery_id for one in probes])))
    if found:
        begun = held.values(first_attempt_at=func.coalesce(column.first_attempt_at, now))
        connection.execute(begun.where(column.id.in_([row.id for _, row in found])))
    return probes + [
        _claim(row, token, queue, row.first_attempt_at or now, row.next_attempt_at) for queue, row in found
    ]


def free_claims(connection: Connection) -> int:
    """Free the claims of a dispatcher that is gone, for whoever knows that it is; give how many there were."""
    column = DELIVERY.c
    claimed = update(DELIVERY).where(column.status.in_((Status.PENDING, Status.DEAD)), column.claim.is_not(None))
    return connection.execute(claimed.values(claim=None, claimable_at=column.next_attempt_at)).rowcount


def _due(connection: Connection, share: Share, now: datetime) -> Sequence[Row[Any]]:
    column = DELIVERY.c
    return connection.execute(
        select(DELIVERY)
        .where(
            PENDING,
            column.workspace_id == share.workspace_id,
            column.retrying.is_(share.queue is Queue.RETRY),
            column.claimable_at <= now,
        )
        .order_by(column.claimable_at)
        .limit(share.count)
        .with_for_update(skip_locked=True)
    ).all()


def _take_probe(connection: Connection, share: Share, now: datetime, rule: Rule) -> Sequence[Row[Any]]:
    """Give the delivery that is the probe: the oldest that waits, else the oldest dead letter; none where another
    dispatcher has taken the probe, or nothing is there to probe with."""
    if not standing.take_probe(connection, share.workspace_id, now, rule):
        return ()
    column = DELIVERY.c
    dead = (
        select(DELIVERY)
        .where(
            column.status == Status.DEAD.value,
            column.workspace_id == share.workspace_id,
            column.settled_at >= rule.since(now),
        )
        .order_by(column.settled_at, column.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    waits = Share(share.workspace_id, Queue.FIRST, 1)
    return _due(connection, waits, now) or connection.execute(dead).all()


def _claim(row: Row[Any], token: str, queue: Queue, first_attempt_at: datetime, planned_at: datetime) -> Claim:
    return Claim(
        delivery_id=row.id,
        token=token,
        workspace_id=row.workspace_id,
        body=row.body,
        queue=queue,
        attempt_number=row.run_attempts + 1,
        first_attempt_at=first_attempt_at,
        planned_at=planned_at,
    )
