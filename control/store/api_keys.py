"""Queries of developers' keys.

A revoked key is not among them; no plaintext comes here.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from control.core.records import StoredApiKey
from control.store.tables import API_KEYS
from runtime.config import log as config_log
from runtime.database import statements
from schemas.config import ConfigKind, KeyRecord

_LIVE = API_KEYS.c.revoked_at.is_(None)


class SqlApiKeys:
    """The keys of all groups that are not revoked, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, prefix: str) -> StoredApiKey | None:
        """Return the key of any group."""
        row = self._connection.execute(select(API_KEYS).where(API_KEYS.c.prefix == prefix, _LIVE)).first()
        return None if row is None else _read(row)

    def add(self, key: StoredApiKey) -> None:
        """Keep a new key; the change goes to the log in the same transaction."""
        values = key.record.model_dump(by_alias=False) | _given(key) | {"id": key.id, "created_at": key.created_at}
        self._connection.execute(insert(API_KEYS).values(values))
        config_log.append(self._connection, key.created_at, ConfigKind.KEY, key.record.prefix, key.record)

    def replace(self, key: StoredApiKey, now: datetime) -> None:
        """Keep what a change may set of a key; the change goes to the log in the same transaction."""
        values = _given(key) | {"expires_at": key.record.expires_at}
        self._connection.execute(update(API_KEYS).where(API_KEYS.c.id == key.id).values(values))
        config_log.append(self._connection, now, ConfigKind.KEY, key.record.prefix, key.record)

    def revoke(self, key: StoredApiKey, now: datetime) -> None:
        """Let a key work no longer; the change goes to the log in the same transaction."""
        self._connection.execute(update(API_KEYS).where(API_KEYS.c.id == key.id).values(revoked_at=now))
        config_log.append(self._connection, now, ConfigKind.KEY, key.record.prefix, None)

    def page(self, group_id: str, after: str, limit: int) -> Sequence[StoredApiKey]:
        """Return at most `limit` keys of the group with an id above `after`, by id."""
        query = select(API_KEYS).where(API_KEYS.c.group_id == group_id, API_KEYS.c.id > after, _LIVE)
        return self._all(query.order_by(API_KEYS.c.id).limit(limit))

    def records(self) -> Iterator[KeyRecord]:
        """Return what other processes know of all of them, one after the other: there may be a million."""
        columns = [API_KEYS.c[name] for name in KeyRecord.model_fields]
        rows = self._connection.execute(select(*columns).where(_LIVE), execution_options=statements.STREAMED)
        for prefix, workspace_id, group_id, sha256, expires_at, disabled in rows:
            yield KeyRecord(
                prefix=prefix,
                workspace_id=workspace_id,
                group_id=group_id,
                sha256=sha256,
                expires_at=expires_at,
                disabled=bool(disabled),
            )

    def _all(self, query: Select[Any]) -> Sequence[StoredApiKey]:
        return [_read(row) for row in self._connection.execute(query)]


def _given(key: StoredApiKey) -> dict[str, Any]:
    """Return what a change may set and no other process needs to know."""
    return {
        "name": key.name,
        "disabled": key.disabled,
        "metadata": key.metadata,
        "successor_prefix": key.successor_prefix,
    }


def _read(row: Row[Any]) -> StoredApiKey:
    record = KeyRecord(
        prefix=row.prefix,
        workspace_id=row.workspace_id,
        group_id=row.group_id,
        sha256=row.sha256,
        expires_at=row.expires_at,
        disabled=bool(row.disabled),
    )
    return StoredApiKey(
        id=row.id,
        record=record,
        name=row.name,
        created_at=row.created_at,
        disabled=row.disabled,
        metadata=row.metadata,
        successor_prefix=row.successor_prefix,
    )
