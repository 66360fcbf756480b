"""The log of configuration changes: written by control, read by whoever holds a snapshot (design 3.8).

Never gives a version twice or out of order: one locked counter row hands them out inside the change's transaction.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import JSON, BigInteger, Column, Connection, Integer, String, Table, insert, select, update

from runtime.database import METADATA, UtcDateTime
from schemas.config import ConfigChange, ConfigKind, ConfigRecord

CONFIG_CHANGE = Table(
    "config_change",
    METADATA,
    Column("version", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("kind", String(16), nullable=False),
    Column("id", String(64), nullable=False),
    Column("record", JSON(none_as_null=True)),
    Column("created_at", UtcDateTime, nullable=False),
)

CONFIG_VERSION = Table(
    "config_version",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
)
"""One row, id 1, made by the migration."""


def append(connection: Connection, now: datetime, kind: ConfigKind, id_: str, record: ConfigRecord | None) -> int:
    """Write one change (None: the thing is gone) in the caller's transaction; give its version."""
    step = update(CONFIG_VERSION).where(CONFIG_VERSION.c.id == 1).values(version=CONFIG_VERSION.c.version + 1)
    version: int = connection.execute(step.returning(CONFIG_VERSION.c.version)).scalar_one()
    body = None if record is None else record.model_dump(mode="json", by_alias=True)
    connection.execute(
        insert(CONFIG_CHANGE).values(version=version, kind=kind.value, id=id_, record=body, created_at=now)
    )
    return version


def current_version(connection: Connection) -> int:
    """Give the version of the newest change, 0 where there is none."""
    version: int = connection.execute(select(CONFIG_VERSION.c.version).where(CONFIG_VERSION.c.id == 1)).scalar_one()
    return version


def read_since(connection: Connection, version: int, limit: int = 1000) -> Sequence[ConfigChange]:
    """Give at most `limit` changes newer than `version`, oldest first."""
    rows = connection.execute(
        select(CONFIG_CHANGE.c.version, CONFIG_CHANGE.c.kind, CONFIG_CHANGE.c.id, CONFIG_CHANGE.c.record)
        .where(CONFIG_CHANGE.c.version > version)
        .order_by(CONFIG_CHANGE.c.version)
        .limit(limit)
    )
    return [ConfigChange(version=row.version, kind=row.kind, id=row.id, record=row.record) for row in rows]
