"""Queries of the answers that are kept for a repeated POST (`Idempotency-Key`)."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, insert, select

from control.core.records import KeptAnswer
from control.store.tables import KEPT_ANSWERS

KEPT = timedelta(hours=24)
MOST = 10_000
"""Of one workspace; the oldest go first."""

_COLUMNS = KEPT_ANSWERS.c


class SqlAnswers:
    """The kept answers of all workspaces, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, name: str, now: datetime) -> KeptAnswer | None:
        """Return the answer kept under this name within the last 24 h."""
        query = select(KEPT_ANSWERS).where(_COLUMNS.name == name, _COLUMNS.created_at > now - KEPT)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else KeptAnswer(row.name, row.workspace_id, row.body_sha256, row.sealed)

    def keep(self, answer: KeptAnswer, now: datetime) -> None:
        """Keep one more answer; forget all that are too old, and the workspace's that are too many."""
        own = _COLUMNS.workspace_id == answer.workspace_id
        self._connection.execute(delete(KEPT_ANSWERS).where(_COLUMNS.created_at <= now - KEPT))
        count = self._connection.execute(select(func.count()).where(own)).scalar_one()
        if count >= MOST:
            oldest = select(_COLUMNS.name).where(own).order_by(_COLUMNS.created_at).limit(count - MOST + 1)
            self._connection.execute(delete(KEPT_ANSWERS).where(_COLUMNS.name.in_(oldest)))
        values = {"name": answer.name, "workspace_id": answer.workspace_id, "created_at": now}
        values |= {"body_sha256": answer.body_sha256, "sealed": answer.sealed}
        self._connection.execute(insert(KEPT_ANSWERS).values(values))
