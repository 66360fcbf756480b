"""Daily usage, limit totals, positions and marks, and the one transaction that moves them with the ledger (design 3.4).

Never adds an event to a sum twice, and never moves one of these without the others.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import cache, partial
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Date,
    Index,
    Insert,
    Integer,
    RowMapping,
    String,
    Table,
    bindparam,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.sql.dml import ReturningInsert

from metering import ledger, recording
from metering.core import decide, rollup
from metering.core import position as positions
from metering.core.rollup import Counter, LimitTotal, Totals
from runtime import statements
from runtime.clock import Clock
from runtime.database import METADATA, Database, UtcDateTime
from schemas.daily import DailyUsage
from schemas.topics import UsageBatch
from schemas.usage import UsageEvent

USAGE_DAILY = Table(
    "usage_daily",
    METADATA,
    Column("day", Date, primary_key=True),
    Column("group_id", String, primary_key=True),
    Column("model_slug", String, primary_key=True),
    Column("workspace_id", String, nullable=False),
    Column("external_entity_id", String, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("corrections", BigInteger, nullable=False),
    Column("corrected_input_tokens", BigInteger, nullable=False),
    Column("corrected_output_tokens", BigInteger, nullable=False),
    Column("lane", String, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index(None, "lane", "updated_at"),
)

LIMIT_DAILY = Table(
    "limit_daily",
    METADATA,
    Column("day", Date, primary_key=True),
    Column("group_id", String, primary_key=True),
    Column("model_slug", String, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("lane", String, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Index(None, "lane", "updated_at"),
)

METERING_POSITION = Table(
    "metering_position",
    METADATA,
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
)
"""`recorded_at` is the ledger's clock at the last move: the newest of all is what the next may not run behind."""

METERING_MARK = Table(
    "metering_mark",
    METADATA,
    Column("lane", String, primary_key=True),
    Column("instance", String, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
"""`sequence` is the highest that is counted, inclusive."""


_POSITIONS = select(METERING_POSITION)
_MOVE = update(METERING_POSITION).where(
    METERING_POSITION.c.topic == bindparam("of_topic"),
    METERING_POSITION.c.partition == bindparam("of_partition"),
    METERING_POSITION.c.next_offset == bindparam("of_offset"),
)
_MARKS = select(METERING_MARK).where(METERING_MARK.c.lane == bindparam("of_lane"))


class SqlLedger:
    """Implements metering's `Ledger` on the database; `now_of` reads the clock that readers hold the newest back by."""

    def __init__(self, database: Database, now_of: Callable[[Connection], datetime]) -> None:
        self._database = database
        self._now_of = now_of

    async def apply(self, batch: UsageBatch) -> Totals:
        """Run `apply` as one transaction."""
        now_of = self._now_of
        return await self._database.write(lambda connection: apply(connection, batch, partial(now_of, connection)))

    async def position(self, topic: str, partition: int) -> int | None:
        """Run `position` as one transaction."""
        return await self._database.read(lambda connection: position(connection, topic, partition))

    async def changed(self, topic: str, partition: int, lane: str, since: datetime) -> Totals:
        """Run `changed` as one transaction."""
        return await self._database.read(lambda connection: changed(connection, topic, partition, lane, since))


def apply(connection: Connection, batch: UsageBatch, clock: Clock) -> Totals:
    """Count what is new in `batch`, in the caller's transaction; give the totals of everything it names, new or not.

    Where nothing of the partition was counted yet, the batch begins the partition. Raises BeyondPositionError and
    PositionLostError; the caller's transaction must then be rolled back.
    """
    moved = {(row.topic, row.partition): row for row in connection.execute(_POSITIONS)}
    known = moved.get((batch.topic, batch.partition))
    at = known.next_offset if known else None
    unseen = positions.unseen(batch, at)
    if at is not None and batch.next_offset <= at:
        return _named(connection, batch, batch.events, Totals((), (), {}, at))
    now = max([clock(), *(row.recorded_at for row in moved.values())])
    _move(connection, batch, at, now)
    new = recording.record(connection, unseen, now)
    increments = rollup.increments(new)
    daily = _add_daily(connection, batch.lane, increments, new, now)
    limits = _add_limits(connection, batch.lane, increments, now)
    _raise_marks(connection, batch.lane, unseen, now)
    counted = {id(event) for event in new}
    others = [event for event in batch.events if id(event) not in counted]
    return _named(connection, batch, others, Totals(daily, limits, {}, batch.next_offset))


def position(connection: Connection, topic: str, partition: int) -> int | None:
    """Give the committed next offset of a partition; None where nothing of it was counted yet."""
    columns = METERING_POSITION.c
    query = select(columns.next_offset).where(columns.topic == topic, columns.partition == partition)
    return connection.execute(query).scalar_one_or_none()


def marks(connection: Connection) -> dict[str, int]:
    """Give the highest sequence counted of every producer instance, inclusive."""
    columns = METERING_MARK.c
    highest = select(columns.instance, func.max(columns.sequence)).group_by(columns.instance)
    return {row[0]: row[1] for row in connection.execute(highest)}


def current(connection: Connection, days: Collection[date]) -> tuple[Totals, ...]:
    """Give all totals of `days`, one `Totals` for each lane."""
    return _by_lane(connection, USAGE_DAILY.c.day.in_(days), LIMIT_DAILY.c.day.in_(days))


def limit_totals(connection: Connection, counters: Collection[Counter]) -> dict[Counter, LimitTotal]:
    """Give the limit totals of these counters; those without an event are left out."""
    return {total.counter: total for total in map(_limit, _rows_of(connection, LIMIT_DAILY, counters))}


def changed(connection: Connection, topic: str, partition: int, lane: str, since: datetime) -> Totals:
    """Give what changed on a lane at or after `since`, to publish it again (design 3.5), and its source's position."""
    found = _by_lane(
        connection, *((table.c.lane == lane) & (table.c.updated_at >= since) for table in (USAGE_DAILY, LIMIT_DAILY))
    )
    totals = found[0] if found else Totals((), (), {})
    return replace(totals, position=position(connection, topic, partition))


def tallies(connection: Connection, from_day: date, to_day: date) -> tuple[ledger.Tally, ...]:
    """Sum daily usage per workspace and day, both days inclusive, in that order; the twin of `ledger.tallies`."""
    columns = USAGE_DAILY.c
    owner = (columns.workspace_id, columns.day)
    figures = ("requests", "input_tokens", "output_tokens")
    corrected = ("corrections", "corrected_input_tokens", "corrected_output_tokens")
    sums = [func.sum(columns[name]) for name in figures + corrected]
    query = select(*owner, *sums).where(columns.day.between(from_day, to_day)).group_by(*owner).order_by(*owner)
    return tuple(ledger.Tally(row[0], row[1], *map(int, row[2:])) for row in connection.execute(query))


def _move(connection: Connection, batch: UsageBatch, at: int | None, now: datetime) -> None:
    """Move the position from `at` to the batch's end. Raises PositionLostError where it is no longer `at`."""
    target = {"next_offset": batch.next_offset, "recorded_at": now}
    if at is None:
        begin = statements.insert_into(connection.dialect.name, METERING_POSITION).on_conflict_do_nothing()
        place = {"topic": batch.topic, "partition": batch.partition}
        # RETURNING, because not every driver counts the rows of an INSERT.
        begun = connection.execute(begin.returning(METERING_POSITION.c.partition), {**place, **target})
        moved = len(begun.all())
    else:
        here = {"of_topic": batch.topic, "of_partition": batch.partition, "of_offset": at}
        moved = connection.execute(_MOVE, {**here, **target}).rowcount
    if moved != 1:
        raise positions.PositionLostError(batch)


def _add_daily(
    connection: Connection, lane: str, increments: rollup.Increments, new: Sequence[UsageEvent], now: datetime
) -> tuple[DailyUsage, ...]:
    owners = {event.group_id: event for event in new}
    rows = [
        {
            **_head(counter, lane, now),
            "workspace_id": owners[counter.group_id].workspace_id,
            "external_entity_id": owners[counter.group_id].external_entity_id,
            **increment._asdict(),
        }
        for counter, increment in sorted(increments.daily.items())
    ]
    return tuple(map(_daily, _add(connection, USAGE_DAILY, rows, rollup.DailyIncrement._fields)))


def _add_limits(
    connection: Connection, lane: str, increments: rollup.Increments, now: datetime
) -> tuple[LimitTotal, ...]:
    rows = [
        {**_head(counter, lane, now), **increment._asdict()} for counter, increment in sorted(increments.limits.items())
    ]
    return tuple(map(_limit, _add(connection, LIMIT_DAILY, rows, rollup.LimitIncrement._fields)))


def _head(counter: Counter, lane: str, now: datetime) -> dict[str, Any]:
    return {**counter._asdict(), "lane": lane, "version": 1, "updated_at": now}


def _add(
    connection: Connection, table: Table, rows: Sequence[dict[str, Any]], sums: tuple[str, ...]
) -> list[RowMapping]:
    """Add `rows` to the rows that are there; give each as it is now, its version grown by one.

    Rows are locked in the given order, which is sorted: so two workers with the same counters never deadlock.
    """
    if not rows:
        return []
    engine = connection.dialect.name
    given = statements.columns_of(rows) if engine == "postgresql" else rows
    return list(connection.execute(_adding(engine, table, sums), given).mappings())


# Building a statement costs as much as running it on a small batch, so those of every transaction are built once.
@cache
def _adding(engine: str, table: Table, sums: tuple[str, ...]) -> ReturningInsert[Any]:
    # On PostgreSQL one text for any number of rows, so that neither side need read it each time.
    arrays = engine == "postgresql"
    statement = statements.insert_arrays(table) if arrays else statements.insert_into(engine, table)
    given = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={
            **{name: table.c[name] + given[name] for name in sums},
            "version": table.c.version + 1,
            "lane": given.lane,
            "updated_at": given.updated_at,
        },
    )
    return statement.returning(*table.c)


@cache
def _raising(engine: str) -> Insert:
    statement = statements.insert_into(engine, METERING_MARK)
    given = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(METERING_MARK.primary_key.columns),
        set_={"sequence": given.sequence, "updated_at": given.updated_at},
        where=given.sequence > METERING_MARK.c.sequence,
    )


def _raise_marks(connection: Connection, lane: str, events: Sequence[UsageEvent], now: datetime) -> None:
    """Count the events' numbers as seen, those of duplicates too: a proxy must not add them to the total again."""
    highest: dict[str, int] = {}
    for event in events:
        producer = event.producer
        highest[producer.instance] = max(producer.sequence, highest.get(producer.instance, 0))
    if not highest:
        return
    connection.execute(
        _raising(connection.dialect.name),
        [
            {"lane": lane, "instance": instance, "sequence": sequence, "updated_at": now}
            for instance, sequence in sorted(highest.items())
        ],
    )


def _marks(connection: Connection, lane: str) -> Mapping[str, int]:
    rows = connection.execute(_MARKS, {"of_lane": lane})
    return decide.heard((row.instance, row.sequence, row.updated_at) for row in rows)


def _named(connection: Connection, batch: UsageBatch, events: Sequence[UsageEvent], counted: Totals) -> Totals:
    """Add to `counted` what `events`, none of them counted now, name beside it, and the lane's marks."""
    daily = {rollup.daily_counter(event) for event in events}
    limits = {counter for event in events for counter in rollup.limit_counters(event)}
    daily -= {Counter(usage.day, usage.group_id, usage.model_slug) for usage in counted.daily}
    limits -= {total.counter for total in counted.limits}
    return Totals(
        daily=(*counted.daily, *map(_daily, _rows_of(connection, USAGE_DAILY, daily))),
        limits=(*counted.limits, *map(_limit, _rows_of(connection, LIMIT_DAILY, limits))),
        marks=_marks(connection, batch.lane),
        position=counted.position,
    )


def _rows_of(connection: Connection, table: Table, counters: Collection[Counter]) -> list[RowMapping]:
    place = tuple_(table.c.day, table.c.group_id, table.c.model_slug)
    return [
        row
        for some in statements.chunks(sorted(counters))
        for row in connection.execute(select(table).where(place.in_(some))).mappings()
    ]


def _by_lane(connection: Connection, daily: ColumnElement[bool], limits: ColumnElement[bool]) -> tuple[Totals, ...]:
    usages: dict[str, list[DailyUsage]] = {}
    for row in connection.execute(select(USAGE_DAILY).where(daily).order_by(*USAGE_DAILY.primary_key)).mappings():
        usages.setdefault(row["lane"], []).append(_daily(row))
    totals: dict[str, list[LimitTotal]] = {}
    for row in connection.execute(select(LIMIT_DAILY).where(limits).order_by(*LIMIT_DAILY.primary_key)).mappings():
        totals.setdefault(row["lane"], []).append(_limit(row))
    return tuple(
        Totals(tuple(usages.get(lane, ())), tuple(totals.get(lane, ())), _marks(connection, lane))
        for lane in sorted(usages.keys() | totals.keys())
    )


def _daily(row: RowMapping) -> DailyUsage:
    return DailyUsage(**{name: value for name, value in row.items() if name != "lane"})


def _limit(row: RowMapping) -> LimitTotal:
    counter = Counter(row["day"], row["group_id"], row["model_slug"])
    return LimitTotal(counter, row["requests"], row["tokens"], row["version"])
