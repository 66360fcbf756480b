"""Queries of secrets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from control.core.records import StoredSecret
from control.store.tables import ENDPOINTS, SECRETS
from runtime.config import log as config_log
from schemas.config import ConfigKind, SecretRecord


class SqlSecrets:
    """The secrets of all workspaces, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, secret_id: str) -> StoredSecret | None:
        """Return the secret of any workspace."""
        return self._one(SECRETS.c.id == secret_id)

    def named(self, workspace_id: str, name: str) -> StoredSecret | None:
        """Return the workspace's secret of this name."""
        return self._one(SECRETS.c.workspace_id == workspace_id, SECRETS.c.name == name)

    def user(self, secret_id: str) -> str | None:
        """Return the slug of an endpoint whose target names the secret."""
        query = select(ENDPOINTS.c.slug).where(ENDPOINTS.c.secret_id == secret_id).limit(1)
        slug: str | None = self._connection.execute(query).scalar_one_or_none()
        return slug

    def add(self, secret: StoredSecret) -> None:
        """Keep a new secret; the change goes to the log in the same transaction."""
        record = secret.record
        values = record.model_dump(by_alias=False) | {"name": secret.name, "created_at": secret.created_at}
        self._connection.execute(insert(SECRETS).values(values))
        config_log.append(self._connection, secret.created_at, ConfigKind.SECRET, record.id, record)

    def replace(self, secret: StoredSecret, now: datetime) -> None:
        """Keep a secret's new value; the change goes to the log in the same transaction."""
        record = secret.record
        self._connection.execute(update(SECRETS).where(SECRETS.c.id == record.id).values(sealed=record.sealed))
        config_log.append(self._connection, now, ConfigKind.SECRET, record.id, record)

    def remove(self, secret: StoredSecret, now: datetime) -> None:
        """Forget a secret; the change goes to the log in the same transaction."""
        self._connection.execute(delete(SECRETS).where(SECRETS.c.id == secret.record.id))
        config_log.append(self._connection, now, ConfigKind.SECRET, secret.record.id, None)

    def page(self, workspace_id: str, after: str, limit: int) -> Sequence[StoredSecret]:
        """Return at most `limit` secrets of the workspace with an id above `after`, by id."""
        query = select(SECRETS).where(SECRETS.c.workspace_id == workspace_id, SECRETS.c.id > after)
        return [_read(row) for row in self._connection.execute(query.order_by(SECRETS.c.id).limit(limit))]

    def every(self) -> Sequence[StoredSecret]:
        """Return all of them."""
        return [_read(row) for row in self._connection.execute(select(SECRETS))]

    def _one(self, *which: ColumnElement[bool]) -> StoredSecret | None:
        row = self._connection.execute(select(SECRETS).where(*which)).first()
        return None if row is None else _read(row)


def _read(row: Row[Any]) -> StoredSecret:
    record = SecretRecord(id=row.id, workspace_id=row.workspace_id, sealed=row.sealed)
    return StoredSecret(record=record, name=row.name, created_at=row.created_at)
