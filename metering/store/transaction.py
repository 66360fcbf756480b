"""The one transaction that moves sums, marks, ledger and position together, and what asks for sums (counting 4).

Never adds an event to a sum twice, and never moves one of these without the others.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from functools import partial

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Table,
    bindparam,
    func,
    select,
    tuple_,
)

from domain import positions
from domain.positions import Progress, Span
from domain.sources import EventBatch
from metering.core import decisions, sums
from metering.core.sums import Counter, LimitTotal, Totals
from metering.store import events, insert, key_usage, totals
from metering.store import positions as stored_positions
from metering.store.tables import LIMIT_DAILY, METERING_MARK, USAGE_DAILY, daily_of, limit_of
from runtime.clock import Clock
from runtime.database import statements
from runtime.database.engines import Database
from schemas.daily import DailyUsage
from schemas.usage import UsageEvent

_MARKS = select(METERING_MARK).where(METERING_MARK.c.lane == bindparam("of_lane"))

PAGE = 2000
"""About how many rows of each kind are read at once to be published again."""


class SqlLedger:
    """Implements metering's `Ledger` on the database; `now_of` reads the clock that readers hold the newest back by."""

    def __init__(self, database: Database, now_of: Callable[[Connection], datetime]) -> None:
        self._database = database
        self._now_of = now_of

    async def apply(self, batch: EventBatch) -> Totals:
        """Run `apply` as one transaction."""
        now_of = self._now_of
        return await self._database.write(lambda connection: apply(connection, batch, partial(now_of, connection)))

    async def position(self, topic: str, partition: int) -> int | None:
        """Return the committed next offset."""
        return await self._database.read(lambda connection: stored_positions.position(connection, topic, partition))

    async def progress(self, topic: str, partition: int) -> Progress | None:
        """Return how far the partition is."""
        return await self._database.read(lambda connection: stored_positions.read(connection, topic, partition))

    async def changed(self, topic: str, partition: int, lane: str, span: Span) -> tuple[Totals, datetime]:
        """Run `changed` as one transaction."""
        return await self._database.read(lambda connection: changed(connection, topic, partition, lane, span))

    async def note_published(self, topic: str, partition: int, upto: Progress) -> None:
        """Note it in one transaction."""
        await self._database.write(
            lambda connection: stored_positions.note_published(connection, topic, partition, upto)
        )


def apply(connection: Connection, batch: EventBatch, clock: Clock) -> Totals:
    """Count what is new in `batch`, in the caller's transaction; return the totals of everything it names, new or not.

    Where nothing of the partition was counted yet, the batch begins the partition. Raise BeyondPositionError and
    PositionLostError; the caller's transaction must then be rolled back.
    """
    moved = stored_positions.every(connection)
    known = moved.get((batch.topic, batch.partition))
    at = known.next_offset if known else None
    unseen = positions.unseen(batch, at)
    if at is not None and batch.next_offset <= at:
        return _named(connection, batch, batch.events, Totals((), (), {}, at))
    now = max([clock(), *(row.recorded_at for row in moved.values())])
    stored_positions.move(connection, batch, at, now)
    new = insert.record(connection, unseen, now)
    increments = sums.increments(new)
    daily = totals.add_daily(connection, batch.lane, increments, new, now)
    limits = totals.add_limits(connection, batch.lane, increments, now)
    key_usage.add(connection, batch.lane, new)
    totals.raise_marks(connection, batch.lane, unseen, now)
    counted = {id(event) for event in new}
    others = [event for event in batch.events if id(event) not in counted]
    return _named(connection, batch, others, Totals(daily, limits, {}, batch.next_offset))


def marks(connection: Connection) -> dict[str, int]:
    """Return the highest sequence counted of every producer instance, inclusive."""
    columns = METERING_MARK.c
    highest = select(columns.instance, func.max(columns.sequence)).group_by(columns.instance)
    return {row[0]: row[1] for row in connection.execute(highest)}


def current(connection: Connection, days: Collection[date]) -> tuple[Totals, ...]:
    """Return all totals of `days`, one `Totals` for each lane."""
    return _by_lane(connection, USAGE_DAILY.c.day.in_(days), LIMIT_DAILY.c.day.in_(days))


def limit_totals(connection: Connection, counters: Collection[Counter]) -> dict[Counter, LimitTotal]:
    """Return the limit totals of these counters; those without an event are left out."""
    return {total.counter: total for total in map(limit_of, _rows_of(connection, LIMIT_DAILY, counters))}


def changed(connection: Connection, topic: str, partition: int, lane: str, span: Span) -> tuple[Totals, datetime]:
    """Return what changed last within `span` on a lane, to publish it again (counting 5).

    With it comes the moment, inclusive, up to which that is all: the span's end, or an earlier one where there are more
    than PAGE rows and those of one transaction. The totals bear the position of the lane's source.
    """
    both = (USAGE_DAILY, LIMIT_DAILY)
    within = [(table.c.lane == lane) & table.c.updated_at.between(*span) for table in both]
    reached = span.through
    for table, which in zip(both, within, strict=True):
        moment = table.c.updated_at
        beyond = connection.execute(select(moment).where(which).order_by(moment).offset(PAGE).limit(1)).scalar()
        reached = min(reached, beyond or reached)
    found = _by_lane(
        connection, *(which & (table.c.updated_at <= reached) for table, which in zip(both, within, strict=True))
    )
    totals = found[0] if found else Totals((), (), {})
    return replace(totals, position=stored_positions.position(connection, topic, partition)), reached


def daily_behind(connection: Connection, after: Counter, to_day: date) -> tuple[DailyUsage, ...]:
    """Return at most PAGE daily usages behind `after` (exclusive), up to the day `to_day`, in the order of counters."""
    return tuple(map(daily_of, _behind(connection, USAGE_DAILY, after, to_day)))


def limits_behind(connection: Connection, after: Counter, to_day: date) -> tuple[Totals, ...]:
    """Return as many limit totals in the same way, one `Totals` for each lane."""
    lanes: dict[str, list[LimitTotal]] = {}
    for row in _behind(connection, LIMIT_DAILY, after, to_day):
        lanes.setdefault(row["lane"], []).append(limit_of(row))
    return tuple(Totals((), tuple(totals), _marks(connection, lane)) for lane, totals in sorted(lanes.items()))


def tallies(connection: Connection, from_day: date, to_day: date) -> tuple[events.Tally, ...]:
    """Sum daily usage per workspace and day, both days inclusive, in that order; the twin of `ledger.tallies`."""
    columns = USAGE_DAILY.c
    owner = (columns.workspace_id, columns.day)
    figures = ("requests", "input_tokens", "output_tokens")
    corrected = ("corrections", "corrected_input_tokens", "corrected_output_tokens")
    sums = [func.sum(columns[name]) for name in figures + corrected]
    query = select(*owner, *sums).where(columns.day.between(from_day, to_day)).group_by(*owner).order_by(*owner)
    return tuple(events.Tally(row[0], row[1], *map(int, row[2:])) for row in connection.execute(query))


def _marks(connection: Connection, lane: str) -> Mapping[str, int]:
    rows = connection.execute(_MARKS, {"of_lane": lane})
    return decisions.heard((row.instance, row.sequence, row.updated_at) for row in rows)


def _named(connection: Connection, batch: EventBatch, events: Sequence[UsageEvent], counted: Totals) -> Totals:
    """Add to `counted` what `events`, none of them counted now, name beside it, and the lane's marks."""
    daily = {sums.daily_counter(event) for event in events}
    limits = {counter for event in events for counter in sums.limit_counters(event)}
    daily -= {Counter(usage.day, usage.group_id, usage.model_slug) for usage in counted.daily}
    limits -= {total.counter for total in counted.limits}
    return Totals(
        daily=(*counted.daily, *map(daily_of, _rows_of(connection, USAGE_DAILY, daily))),
        limits=(*counted.limits, *map(limit_of, _rows_of(connection, LIMIT_DAILY, limits))),
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


def _behind(connection: Connection, table: Table, after: Counter, to_day: date) -> Sequence[RowMapping]:
    place = tuple_(*table.primary_key)
    here = tuple_(
        *(bindparam(None, value, column.type) for value, column in zip(after, table.primary_key, strict=True))
    )
    query = select(table).where(place > here, table.c.day <= to_day).order_by(*table.primary_key).limit(PAGE)
    return connection.execute(query).mappings().all()


def _by_lane(connection: Connection, daily: ColumnElement[bool], limits: ColumnElement[bool]) -> tuple[Totals, ...]:
    usages: dict[str, list[DailyUsage]] = {}
    for row in connection.execute(select(USAGE_DAILY).where(daily).order_by(*USAGE_DAILY.primary_key)).mappings():
        usages.setdefault(row["lane"], []).append(daily_of(row))
    totals: dict[str, list[LimitTotal]] = {}
    for row in connection.execute(select(LIMIT_DAILY).where(limits).order_by(*LIMIT_DAILY.primary_key)).mappings():
        totals.setdefault(row["lane"], []).append(limit_of(row))
    return tuple(
        Totals(tuple(usages.get(lane, ())), tuple(totals.get(lane, ())), _marks(connection, lane))
        for lane in sorted(usages.keys() | totals.keys())
    )
