"""How far each partition is counted, and how far the totals of that are published (counting 4, 5).

Never moves a position but from where its caller saw it: another worker may own the partition by now.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Integer, Row, String, Table, bindparam, or_, select, update

from domain import positions
from domain.positions import Progress
from domain.sources import EventBatch
from runtime.database import statements
from runtime.database.engines import METADATA, UtcDateTime

METERING_POSITION = Table(
    "metering_position",
    METADATA,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("published_offset", BigInteger),
    Column("published_at", UtcDateTime),
)
"""`recorded_at` is the ledger's clock at the last move: the newest of all is what the next may not run behind.

The last two are what the two before were when all that had changed by then was seen to be published; null before the
first time, and where nothing is published to a topic.
"""

_COLUMNS = METERING_POSITION.c
_EVERY = select(_COLUMNS.topic, _COLUMNS.partition, _COLUMNS.next_offset, _COLUMNS.recorded_at)
_MOVE = update(METERING_POSITION).where(
    _COLUMNS.topic == bindparam("of_topic"),
    _COLUMNS.partition == bindparam("of_partition"),
    _COLUMNS.next_offset == bindparam("of_offset"),
)

Place = tuple[str, int]
"""A topic and a partition of it."""


def every(connection: Connection) -> dict[Place, Row[Any, Any, Any, Any]]:
    """Return `next_offset` and `recorded_at` of every partition that was begun."""
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


def move(connection: Connection, batch: EventBatch, at: int | None, now: datetime) -> None:
    """Move the position from `at` to the batch's end. Raise PositionLostError where it is no longer `at`."""
    target = {"next_offset": batch.next_offset, "recorded_at": now}
    if at is None:
        begin = statements.insert_into(connection.dialect.name, METERING_POSITION).on_conflict_do_nothing()
        place = {"topic": batch.topic, "partition": batch.partition}
        # RETURNING, because not every driver counts the rows of an INSERT.
        begun = connection.execute(begin.returning(_COLUMNS.partition), {**place, **target})
        moved = len(begun.all())
    else:
        here = {"of_topic": batch.topic, "of_partition": batch.partition, "of_offset": at}
        moved = connection.execute(_MOVE, {**here, **target}).rowcount
    if moved != 1:
        raise positions.PositionLostError(batch)


def note_published(connection: Connection, topic: str, partition: int, upto: Progress) -> None:
    """Note that the topics have all that had changed when the partition stood at `upto`. Never goes back."""
    connection.execute(
        update(METERING_POSITION)
        .where(_COLUMNS.topic == topic, _COLUMNS.partition == partition)
        .where(or_(_COLUMNS.published_at.is_(None), _COLUMNS.published_at <= upto.recorded_at))
        .values(published_offset=upto.next_offset, published_at=upto.recorded_at)
    )
