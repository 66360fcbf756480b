"""Queries of the audit log.

An entry stays as it is until it has expired.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from control.core.records import AuditEntry, Shown
from control.store.tables import AUDIT_LOG
from runtime import ids
from runtime.database import statements

_BELIEVED = timedelta(days=7)
"""How far the clock may lie beyond the newest entry: further, and it is not believed."""

OPERATOR = "operator"
"""The actor of what a command does."""


class Audit:
    """Implements the flows' `Journal` for one actor, in the change's own transaction."""

    def __init__(self, connection: Connection, actor: str, now: datetime) -> None:
        self._connection = connection
        self._actor = actor
        self._now = now

    def note(
        self, workspace_id: str, action: str, subject: str, *, before: Shown | None = None, after: Shown | None = None
    ) -> None:
        """Write one entry."""
        self._connection.execute(
            insert(AUDIT_LOG).values(
                id=ids.mint(self._now),
                at=self._now,
                workspace_id=workspace_id,
                actor=self._actor,
                action=action,
                subject=subject,
                before=before,
                after=after,
            )
        )


def forget(connection: Connection, now: datetime, keep: timedelta, limit: int) -> int:
    """Remove at most `limit` of the oldest entries that were written more than `keep` ago; return how many."""
    columns = AUDIT_LOG.c
    last = connection.execute(select(columns.at).order_by(columns.id.desc()).limit(1)).scalar()
    if last is None:
        return 0
    before = min(now, last + _BELIEVED) - keep
    rows = connection.execute(select(columns.id, columns.at).order_by(columns.id).limit(limit))
    expired = [row.id for row in rows if row.at < before]
    for some in statements.chunks(expired):
        connection.execute(delete(AUDIT_LOG).where(columns.id.in_(some)))
    return len(expired)


def newest(connection: Connection, workspace_id: str | None, limit: int) -> Sequence[AuditEntry]:
    """Return the `limit` newest entries, of one workspace or of all, oldest first."""
    query = select(AUDIT_LOG).order_by(AUDIT_LOG.c.id.desc()).limit(limit)
    if workspace_id is not None:
        query = query.where(AUDIT_LOG.c.workspace_id == workspace_id)
    return [_read(row) for row in reversed(connection.execute(query).all())]


def _read(row: Row[Any]) -> AuditEntry:
    return AuditEntry(row.id, row.at, row.workspace_id, row.actor, row.action, row.subject, row.before, row.after)
