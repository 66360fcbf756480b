"""The log of configuration changes: written by control, read by whoever holds a snapshot (counting 8).

One locked counter row hands versions out inside the change's transaction, so that they appear in order.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple, TypeVar

from pydantic import ValidationError, create_model
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Connection,
    Integer,
    RowMapping,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)

from runtime.config import epochs, newer
from runtime.database.engines import METADATA, UtcDateTime
from schemas.config import RECORD_OF, ConfigChange, ConfigKind, ConfigRecord

KEPT = timedelta(hours=48)
"""How long a change that was sent stays here. A reader that was away for longer reloads everything."""

STEP = 10_000
"""Rows that one transaction removes."""

_KINDS = [kind.value for kind in ConfigKind]

Skip = Callable[[str, Exception], None]
"""Takes the place of what could not be read, and why."""

Result = TypeVar("Result")

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


def in_turn(work: Callable[[Connection], Result]) -> Callable[[Connection], Result]:
    """Let `work`, a whole transaction, look only once no other change is under way, and keep the next one out.

    For all that decides by what it reads: two changes that are each right alone may be wrong together. SQLite has
    one writer at a time anyway.
    """

    def run(connection: Connection) -> Result:
        connection.execute(select(CONFIG_VERSION.c.version).where(CONFIG_VERSION.c.id == 1).with_for_update())
        return work(connection)

    return run


def append(connection: Connection, now: datetime, kind: ConfigKind, id_: str, record: ConfigRecord | None) -> int:
    """Write one change (None: the thing is gone) in the caller's transaction; return its version."""
    step = update(CONFIG_VERSION).where(CONFIG_VERSION.c.id == 1).values(version=CONFIG_VERSION.c.version + 1)
    version: int = connection.execute(step.returning(CONFIG_VERSION.c.version)).scalar_one()
    body = None if record is None else record.model_dump(mode="json", by_alias=True)
    connection.execute(
        insert(CONFIG_CHANGE).values(version=version, kind=kind.value, id=id_, record=body, created_at=now)
    )
    return version


def current_version(connection: Connection) -> int:
    """Return the version of the newest change, 0 where there is none."""
    version: int = connection.execute(select(CONFIG_VERSION.c.version).where(CONFIG_VERSION.c.id == 1)).scalar_one()
    return version


def raise_epoch(connection: Connection, newest_read: int) -> int:
    """Let later versions lie above `newest_read` and all that were given here: begin an epoch; return its number."""
    begins = epochs.next_start(current_version(connection), newest_read)
    connection.execute(update(CONFIG_VERSION).where(CONFIG_VERSION.c.id == 1).values(version=begins))
    return epochs.of(begins)


class LoggedChange(NamedTuple):
    """A row as it was written, perhaps by a newer version that knows more kinds."""

    version: int
    kind: str
    id: str
    record: dict[str, Any] | None
    at: datetime


class ChangesRead(NamedTuple):
    """What was read of the log."""

    changes: Sequence[ConfigChange]
    newest: int
    """The version of the last row, also of one that was skipped; without any, the version that was asked from."""


def read_since(connection: Connection, version: int, skip: Skip, limit: int = 1000) -> ChangesRead:
    """Return what at most `limit` rows newer than `version` hold, oldest first; kinds that we do not know are left out.

    What cannot be read is given to `skip` with its place and keeps no other from being read; of a limit or field of a
    newer version that is told too, and the rest is taken (LeftOutError).
    """
    columns = CONFIG_CHANGE.c
    query = (
        select(columns.version, columns.kind, columns.id, columns.record, columns.created_at.label("at"))
        .where(columns.version > version, columns.kind.in_(_KINDS))
        .order_by(columns.version)
    )
    rows = connection.execute(query.limit(limit)).mappings().all()
    changes = [change for row in rows if (change := _change(row, skip)) is not None]
    return ChangesRead(changes, rows[-1]["version"] if rows else version)


def rows_since(connection: Connection, version: int, limit: int = 1000) -> list[LoggedChange]:
    """Return at most `limit` rows of every kind newer than `version`, oldest first."""
    query = select(CONFIG_CHANGE).where(CONFIG_CHANGE.c.version > version).order_by(CONFIG_CHANGE.c.version)
    return [LoggedChange(*row) for row in connection.execute(query.limit(limit))]


def oldest_version(connection: Connection) -> int | None:
    """Return the version of the oldest change that is still here."""
    oldest: int | None = connection.execute(select(func.min(CONFIG_CHANGE.c.version))).scalar_one()
    return oldest


def version_before(connection: Connection, moment: datetime) -> int:
    """Return the newest version written before `moment`; 0 where there is none."""
    query = select(CONFIG_CHANGE.c.version).where(CONFIG_CHANGE.c.created_at < moment)
    return connection.execute(query.order_by(CONFIG_CHANGE.c.version.desc()).limit(1)).scalar() or 0


def forget(connection: Connection, before: datetime, up_to: int) -> int:
    """Remove at most STEP rows written before `before`, of those up to the version `up_to`; return how many."""
    columns = CONFIG_CHANGE.c
    oldest = select(columns.version, columns.created_at).order_by(columns.version).limit(STEP)
    last = 0
    for version, written_at in connection.execute(oldest):
        if version > up_to or written_at >= before:
            break
        last = version
    return connection.execute(delete(CONFIG_CHANGE).where(columns.version <= last)).rowcount if last else 0


@cache
def change_of(kind: ConfigKind) -> type[ConfigChange]:
    """Return `ConfigChange` narrowed to the record that `kind` has.

    Where each record's class is tried in turn a key takes 14 us, so 3: a proxy reads a million of them at start.
    """
    record: Any = RECORD_OF[kind]
    return create_model(f"{record.__name__}Change", __base__=ConfigChange, record=(record | None, ...))


def _change(row: RowMapping, skip: Skip) -> ConfigChange | None:
    model, body = change_of(ConfigKind(row["kind"])), dict(row)
    place = f"version {row['version']} of a {row['kind']}"
    try:
        return model.model_validate(body)
    except ValidationError as error:
        refused = error
    try:
        change, left_out = newer.read(model, body, refused)
    except ValidationError as error:
        skip(place, error)
        return None
    skip(place, left_out)
    return change
