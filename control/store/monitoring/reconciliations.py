"""Queries of the reconciliations that the operator began at the console: one at a time, kept for a week."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection, delete, select, update

from control.store.monitoring.tables import RECONCILIATION
from runtime.database import engines

KEPT = timedelta(days=7)
MOST = 100
"""Of those that ended, the oldest of more than these go."""
MOST_CHARACTERS = 256 * 1024
LOST_AFTER = timedelta(minutes=15)
"""One that has not ended by then ended with its process; no longer does one take."""

_LOCK = "reconciliations"

_COLUMNS = RECONCILIATION.c


class Verdict(StrEnum):
    """What a reconciliation came to."""

    AGREES = "agrees"
    DIFFERS = "differs"
    NOT_COMPARED = "not_compared"


class StoredReconciliation(NamedTuple):
    """One reconciliation; the last three are None until it has ended."""

    id: str
    day: date
    started_at: datetime
    ended_at: datetime | None
    verdict: Verdict | None
    text: str | None
    """What the command prints, or why nothing could be compared."""

    def is_under_way(self, now: datetime) -> bool:
        """Tell whether its process may still be at it."""
        return self.ended_at is None and now - self.started_at < LOST_AFTER


def begin(connection: Connection, id_: str, day: date, now: datetime) -> bool:
    """Note one that begins; False where another is under way."""
    engines.lock(connection, _LOCK)
    running = select(_COLUMNS.id).where(_COLUMNS.ended_at.is_(None), _COLUMNS.started_at > now - LOST_AFTER)
    if connection.execute(running.limit(1)).first() is not None:
        return False
    connection.execute(RECONCILIATION.insert().values(id=id_, day=day, started_at=now))
    last = select(_COLUMNS.id).order_by(_COLUMNS.id.desc()).offset(MOST).limit(1)
    connection.execute(delete(RECONCILIATION).where(_COLUMNS.id <= last.scalar_subquery()))
    return True


def end(connection: Connection, id_: str, now: datetime, verdict: Verdict, text: str) -> None:
    """Note what one came to; of its text what is beyond MOST_CHARACTERS is cut off."""
    shown = text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + "\n(cut off here)"
    ended = {"ended_at": now, "verdict": verdict.value, "text": shown}
    connection.execute(update(RECONCILIATION).where(_COLUMNS.id == id_).values(ended))


def newest(connection: Connection, now: datetime) -> Sequence[StoredReconciliation]:
    """Return those of the last week, the newest first, MOST at most."""
    query = select(RECONCILIATION).where(_COLUMNS.started_at > now - KEPT).order_by(_COLUMNS.id.desc()).limit(MOST)
    return [
        StoredReconciliation(
            row.id,
            row.day,
            row.started_at,
            row.ended_at,
            None if row.verdict is None else Verdict(row.verdict),
            row.text,
        )
        for row in connection.execute(query)
    ]


def forget(connection: Connection, now: datetime, limit: int) -> int:
    """Remove at most `limit` of those that are older than a week; return how many went."""
    old = select(_COLUMNS.id).where(_COLUMNS.started_at <= now - KEPT).limit(limit)
    return connection.execute(delete(RECONCILIATION).where(_COLUMNS.id.in_(old))).rowcount
