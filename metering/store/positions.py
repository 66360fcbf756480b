"""How far each partition is counted, and how far the totals of that are told (counting 4, 5).

Never moves a position but from where its caller saw it: another worker may own the partition by now.
"""

from collections.abc import Collection
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Date,
    Integer,
    Row,
    String,
    Table,
    or_,
    select,
    text,
    tuple_,
    update,
)

from domain.positions import PositionLostError, Progress
from domain.sources import EventBatch, PartitionId
from runtime.database import positions
from runtime.database.engines import METADATA, UtcDateTime

METERING_POSITION = Table(
    "metering_position",
    METADATA,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("ahead_us", BigInteger, nullable=False, default=0, server_default=text("0")),
    Column("told_offset", BigInteger),
    Column("told_end", BigInteger),
    Column("told_at", UtcDateTime),
    Column("told_from_day", Date),
)
"""`recorded_at` is the ledger's clock at the last move, and `ahead_us` by how many microseconds it was ahead of its
source then (`metering.store.ledger_clock`).

The rest is of partitions whose totals are told to a topic: every change below `told_offset` was told by `told_at`, and
the decisions' partition ended at `told_end` then; all null before the first time. `told_from_day`: the oldest day that
was changed since, where that is older than the day before.
"""

_MICROSECOND = timedelta(microseconds=1)
_COLUMNS = METERING_POSITION.c
_EVERY = select(_COLUMNS.topic, _COLUMNS.partition, _COLUMNS.next_offset, _COLUMNS.recorded_at, _COLUMNS.ahead_us)


def every(connection: Connection) -> dict[PartitionId, Row[Any, Any, Any, Any, Any]]:
    """Return `next_offset`, `recorded_at` and `ahead_us` of every partition that was begun."""
    return {(row.topic, row.partition): row for row in connection.execute(_EVERY)}


def read(connection: Connection, topic: str, partition: int) -> Progress | None:
    """Return how far a partition is; None where nothing of it was counted yet."""
    wanted = select(*(_COLUMNS[name] for name in Progress._fields))
    row = connection.execute(wanted.where(_COLUMNS.topic == topic, _COLUMNS.partition == partition)).one_or_none()
    return None if row is None else Progress._make(row)


def position(connection: Connection, topic: str, partition: int) -> int | None:
    """Return the committed next offset of a partition; None where nothing of it was counted yet."""
    found = read(connection, topic, partition)
    return None if found is None else found.next_offset


def move(connection: Connection, batch: EventBatch, at: int | None, now: datetime, ahead: timedelta) -> None:
    """Move the position from `at` to the batch's end. Raise PositionLostError where it is no longer `at`.

    `now` is the ledger's clock, `ahead` by how much it is ahead of its source.
    """
    values = {"recorded_at": now, "ahead_us": ahead // _MICROSECOND}
    if not positions.move(connection, METERING_POSITION, batch.source, at, next_offset=batch.next_offset, **values):
        raise PositionLostError(batch)


def note_clock(connection: Connection, places: Collection[PartitionId], now: datetime, ahead: timedelta) -> None:
    """Note of partitions what the ledger's clock says, and by how much it is ahead of its source; they do not move."""
    here = tuple_(_COLUMNS.topic, _COLUMNS.partition).in_(places)
    noted = {"recorded_at": now, "ahead_us": ahead // _MICROSECOND}
    connection.execute(update(METERING_POSITION).where(here, _COLUMNS.recorded_at <= now).values(noted))


def lower_told_from(connection: Connection, topic: str, partition: int, day: date) -> None:
    """Note that a partition's totals of `day`, an old one, have changed."""
    connection.execute(
        update(METERING_POSITION)
        .where(_COLUMNS.topic == topic, _COLUMNS.partition == partition)
        .where(or_(_COLUMNS.told_from_day.is_(None), _COLUMNS.told_from_day > day))
        .values(told_from_day=day)
    )


def note_told(connection: Connection, topic: str, partition: int, at: int, end: int | None, now: datetime) -> bool:  # noqa: PLR0917 - a row's columns
    """Note that every change below `at` was told, and where the decisions end; False where the position has moved."""
    noted = connection.execute(
        update(METERING_POSITION)
        .where(_COLUMNS.topic == topic, _COLUMNS.partition == partition, _COLUMNS.next_offset == at)
        .values(told_offset=at, told_end=end, told_at=now, told_from_day=None)
    )
    return noted.rowcount == 1
