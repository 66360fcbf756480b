"""How long deliveries and what intake knows are kept, and their removal in small steps (contract 5).

Never removes a delivery that is pending, nor a key while its event could still be taken in, and never waits for a lock.

A delivery and its attempts go KEEP after it ended. Its events' keys stay longer, for an event may come again: 35 days
it lies in its topic (a few more until its segment is full), and a proxy's spool may send it once more before that. The
ledger takes late events for `domain.ledger_days.LATE_DAYS`, 100 days, so 65 of them are the spool's. Therefore a key
stays as long as the ledger is kept, at least those 100 days; and intake drops an event whose day the ledger no longer
takes. So an event that comes again is either known or dropped, whatever the arithmetic.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime, time, timedelta

from sqlalchemy import Connection, Select, delete, func, select, update

from domain import sources
from runtime import ids
from runtime.database import statements
from webhooks.core.deliveries import Status
from webhooks.store.tables import ATTEMPT, DELIVERY, DELIVERY_EVENT, PENDING, WEBHOOK_POSITION

KEEP = timedelta(days=35)
"""How long a delivery is kept after it was delivered, given up or put aside, and how long one waits at most."""

STEP = 100
"""Deliveries, each of up to 100 events' bytes, that one transaction removes."""

KEY_STEP = 10_000
"""Keys that one transaction removes: a quarter of a second (ADR 52), in which nobody on PostgreSQL waits."""

WAITED = f"its receiver was not back within {KEEP.days} days"

_COLUMNS = DELIVERY.c


def workspaces(connection: Connection) -> Sequence[str]:
    """Return each workspace that has deliveries. Jumps from one to the next in the index, never over rows."""
    found = select(func.min(_COLUMNS.workspace_id).label("workspace_id")).cte("found", recursive=True)
    beyond = select(func.min(_COLUMNS.workspace_id)).where(_COLUMNS.workspace_id > found.c.workspace_id)
    found = found.union_all(select(beyond.scalar_subquery()).where(found.c.workspace_id.is_not(None)))
    rows = connection.execute(select(found.c.workspace_id).where(found.c.workspace_id.is_not(None)))
    return [row.workspace_id for row in rows]


def newest(connection: Connection) -> datetime | None:
    """Return when the newest delivery was made; without any, the end of the newest day that a key is known of."""
    made = [connection.execute(_newest_of(workspace_id)).scalar_one() for workspace_id in workspaces(connection)]
    if made:
        return max(made)
    day: date | None = connection.execute(select(func.max(DELIVERY_EVENT.c.day))).scalar_one()
    return None if day is None else datetime.combine(day + timedelta(days=1), time(), UTC)


def remove(connection: Connection, workspace_id: str, now: datetime, limit: int = STEP) -> int:
    """Remove a workspace's oldest deliveries that ended KEEP ago, with their attempts; return how many."""
    ended = select(_COLUMNS.id).where(~PENDING, _COLUMNS.settled_at < now - KEEP)
    names = _oldest(connection, ended, workspace_id, now, limit)
    if names:
        connection.execute(delete(ATTEMPT).where(ATTEMPT.c.delivery_id.in_(names)))
        connection.execute(delete(DELIVERY).where(_COLUMNS.id.in_(names)))
    return len(names)


def give_up(connection: Connection, workspace_id: str, now: datetime, limit: int = STEP) -> int:
    """Make dead letters of what has waited KEEP for its attempt; return how many.

    They wait so long where the receiver is held or disabled: seen as dead letters, and expiring like them.
    """
    waits = select(_COLUMNS.id).where(PENDING, _COLUMNS.claimable_at < now - KEEP)
    names = _oldest(connection, waits, workspace_id, now, limit)
    if names:
        ended = {"status": Status.DEAD.value, "reason": WAITED, "settled_at": now}
        unplanned = {"claim": None, "next_attempt_at": None, "claimable_at": None}
        connection.execute(update(DELIVERY).where(_COLUMNS.id.in_(names)).values(**ended, **unplanned))
    return len(names)


def forget(connection: Connection, before: date, limit: int = KEY_STEP) -> int:
    """Remove what intake knows of days before `before`; return how many keys."""
    return connection.execute(statements.removal(DELIVERY_EVENT, before, limit)).rowcount


def forget_positions(connection: Connection, before: datetime, spools: Collection[str], limit: int = KEY_STEP) -> int:
    """Remove the positions of spools that were made before `before` and are not among `spools`; return how many.

    A spool's topic ends with its instance, which says when it was made.
    """
    columns = WEBHOOK_POSITION.c
    made_before = sources.SPOOL + ids.first_of(before)
    gone = columns.topic.startswith(sources.SPOOL, autoescape=True) & columns.topic.not_in(spools)
    old = select(columns.topic).where(gone, columns.topic < made_before).limit(limit)
    return connection.execute(delete(WEBHOOK_POSITION).where(columns.topic.in_(old))).rowcount


def _newest_of(workspace_id: str) -> Select[datetime]:
    return select(func.max(_COLUMNS.created_at)).where(_COLUMNS.workspace_id == workspace_id)


def _oldest(connection: Connection, query: Select[str], workspace_id: str, now: datetime, limit: int) -> Sequence[str]:
    of_workspace = (_COLUMNS.workspace_id == workspace_id) & (_COLUMNS.created_at < now - KEEP)
    some = query.where(of_workspace).order_by(_COLUMNS.created_at).limit(limit).with_for_update(skip_locked=True)
    return connection.execute(some).scalars().all()
