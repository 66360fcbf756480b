"""The one transaction that moves sums, ledger and position together, and what asks for sums (counting 4).

Never adds an event to a sum twice, and never moves one of these without the others.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import date, datetime, timedelta
from functools import cache, partial
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, bindparam, func, select, tuple_

from domain import days, positions, sources
from domain.positions import Progress
from domain.sources import EventBatch
from metering.core import sums
from metering.core.alerts import Alert
from metering.core.sums import Counter, LimitIncrement, LimitTotal, Totals
from metering.store import alerts, events, insert, key_usage, ledger_clock, spreads, totals
from metering.store import positions as stored_positions
from metering.store.tables import LIMIT_DAILY, USAGE_DAILY, daily_of, limit_of
from runtime.clock import Clock
from runtime.config import epochs
from runtime.config import log as config_log
from runtime.database import statements
from runtime.database.engines import Database
from schemas.daily import DailyUsage
from schemas.limits import UsageLimitUnit
from schemas.spooled import AnyEvent

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

    async def note_clock_set_back(self) -> None:
        """Note of a clock that was set back that its time passes from here on (`ledger_clock.note_set_back`)."""
        now_of = self._now_of
        await self._database.write(lambda connection: ledger_clock.note_set_back(connection, now_of(connection)))

    async def position(self, topic: str, partition: int) -> int | None:
        """Return the committed next offset."""
        return await self._database.read(lambda connection: stored_positions.position(connection, topic, partition))

    async def first_version(self) -> int:
        """Return the lowest version of the database's epoch (counting 9)."""
        return epochs.start(await self._database.read(config_log.current_version))

    async def progress(self, topic: str, partition: int) -> Progress | None:
        """Return how far the partition is."""
        return await self._database.read(lambda connection: stored_positions.read(connection, topic, partition))

    async def note_told(self, topic: str, partition: int, at: int, end: int | None, now: datetime) -> bool:
        """Note it in one transaction."""
        return await self._database.write(
            lambda connection: stored_positions.note_told(connection, topic, partition, at, end, now)
        )

    async def untold(  # noqa: PLR0917 - which rows
        self, topic: str, partition: int, lane: str, told: int, from_day: date, after: Counter | None
    ) -> Totals:
        """Run `untold` as one transaction."""
        return await self._database.read(
            lambda connection: untold(connection, topic, partition, lane, told, from_day, after)
        )

    async def parts(self, topic: str, partition: int, lane: str, counters: Collection[Counter]) -> Totals:
        """Run `parts` as one transaction."""
        return await self._database.read(lambda connection: parts(connection, topic, partition, lane, counters))

    async def elsewhere(
        self, lane: str, daily: Collection[Counter], limits: Collection[Counter]
    ) -> tuple[Sequence[DailyUsage], Sequence[LimitTotal]]:
        """Run `elsewhere` as one transaction."""
        return await self._database.read(lambda connection: elsewhere(connection, lane, daily, limits))

    async def months(
        self, topic: str, partition: int, lane: str, names: Collection[Counter]
    ) -> tuple[Totals, Sequence[LimitTotal]]:
        """Run `months` as one transaction."""
        return await self._database.read(lambda connection: months(connection, topic, partition, lane, names))

    async def named_in_month(self, lane: str, month: date, after: tuple[str, str]) -> Sequence[tuple[str, str]]:
        """Run `named_in_month` as one transaction."""
        return await self._database.read(lambda connection: named_in_month(connection, lane, month, after))

    async def spreads(self) -> dict[str, int]:
        """Read them in one transaction."""
        return await self._database.read(spreads.read)

    async def note_spread(self, tree: str, lanes: int, now: datetime) -> None:
        """Note it in one transaction."""
        await self._database.write(lambda connection: spreads.note(connection, tree, lanes, now))

    async def keep_alerts(self, found: Sequence[Alert]) -> None:
        """Keep them in one transaction, by the time that readers hold the newest back by."""
        now_of = self._now_of
        await self._database.write(lambda connection: alerts.keep(connection, found, now_of(connection)))

    async def over_slugs(self, group_ids: Collection[str], first: date, last: date) -> dict[str, LimitIncrement]:
        """Run `limit_totals` and add up what it finds of each group."""
        found = await self._database.read(lambda connection: limit_totals(connection, group_ids, first, last))
        whole: dict[str, LimitIncrement] = {}
        for (group_id, _), used in found.items():
            whole[group_id] = whole.get(group_id, LimitIncrement()).plus(used)
        return whole

    async def daily(self, counters: Collection[Counter]) -> dict[Counter, DailyUsage]:
        """Return the daily usage of these counters, over all lanes."""
        rows = await self._database.read(lambda connection: _rows_of(connection, USAGE_DAILY, counters))
        return sums.whole_daily(map(daily_of, rows))


def apply(connection: Connection, batch: EventBatch, clock: Clock) -> Totals:
    """Count what is new in `batch`, in the caller's transaction; return the lane's parts of everything it names.

    Where nothing of the partition was counted yet, the batch begins the partition. Raise BeyondPositionError and
    PositionLostError; the caller's transaction must then be rolled back.
    """
    moved = stored_positions.every(connection)
    known = moved.get(batch.source)
    at = known.next_offset if known else None
    unseen = positions.unseen(batch, at)
    if at is not None and batch.next_offset <= at:
        return _named(connection, batch.events, Totals(batch.lane, (), (), at))
    source = clock()
    now = ledger_clock.next_moment(moved.values(), source)
    stored_positions.move(connection, batch, at, now, now - source)
    new = insert.record(connection, unseen, now)
    increments = sums.increments(new)
    daily = totals.add_daily(connection, batch, increments, new, now)
    limits = totals.add_limits(connection, batch, increments, now)
    key_usage.add(connection, batch.lane, new)
    oldest = min((counter.day for counter in increments.daily), default=date.max)
    if oldest < now.date() - timedelta(days=1):
        stored_positions.lower_told_from(connection, *batch.source, oldest)
    counted = {id(event) for event in new}
    others = [event for event in batch.events if id(event) not in counted]
    return _named(connection, others, Totals(batch.lane, daily, limits, batch.next_offset))


def counted_through(connection: Connection) -> dict[str, int]:
    """Return, by instance, the highest sequence of each spool of this data directory that is counted, inclusive."""
    return {
        topic.removeprefix(sources.SPOOL): row.next_offset - 1
        for (topic, _), row in stored_positions.every(connection).items()
        if topic.startswith(sources.SPOOL)
    }


def current(connection: Connection, of_days: Collection[date]) -> tuple[tuple[Totals, ...], dict[str, int]]:
    """Return all parts of limit totals of `of_days`, one `Totals` for each lane; and the positions of all topics.

    The latter are of the same moment, and of partition 0: that is all that a spool has.
    """
    lanes: dict[str, list[LimitTotal]] = {}
    query = select(LIMIT_DAILY).where(LIMIT_DAILY.c.day.in_(of_days)).order_by(*LIMIT_DAILY.primary_key)
    for row in connection.execute(query):
        lanes.setdefault(row.lane, []).append(limit_of(row))
    moved = {topic: row.next_offset for (topic, _), row in stored_positions.every(connection).items()}
    found = tuple(Totals(lane, (), tuple(limits), moved.get(lane, 0)) for lane, limits in lanes.items())
    return found, moved


def limit_totals(
    connection: Connection, group_ids: Collection[str], first: date, last: date
) -> dict[tuple[str, str], LimitIncrement]:
    """Return what counts against limits of groups by (group, slug), over all lanes and the days, both inclusive.

    What had no event is left out.
    """
    columns = LIMIT_DAILY.c
    place = (columns.group_id, columns.model_slug)
    figures = [totals.summed(columns[name]) for name in LimitIncrement._fields]
    within = (columns.group_id.in_(group_ids), columns.day.between(first, last))
    query = select(*place, *figures).where(*within).group_by(*place)
    return {(row[0], row[1]): LimitIncrement(*map(int, row[2:])) for row in connection.execute(query)}


def untold(  # noqa: PLR0917 - which rows
    connection: Connection, topic: str, partition: int, lane: str, told: int, from_day: date, after: Counter | None
) -> Totals:
    """Return a lane's parts that changed above its offset `told`, from `from_day` on, behind `after` (exclusive).

    At most PAGE counters, in their order, with both parts of each; none when there are no more.
    """
    places: set[Counter] = set()
    for table in (USAGE_DAILY, LIMIT_DAILY):
        place = tuple_(table.c.day, table.c.group_id, table.c.model_slug)
        query = select(*place).where(table.c.lane == lane, table.c.day >= from_day, table.c.changed_at > told)
        if after is not None:
            here = tuple_(*(bindparam(None, value, column.type) for value, column in zip(after, place, strict=True)))
            query = query.where(place > here)
        places |= {Counter(row[0], row[1], row[2]) for row in connection.execute(query.order_by(*place).limit(PAGE))}
    return parts(connection, topic, partition, lane, sorted(places)[:PAGE])


def parts(connection: Connection, topic: str, partition: int, lane: str, counters: Collection[Counter]) -> Totals:
    """Return what a lane has of these counters, and its position."""
    return Totals(
        lane,
        tuple(map(daily_of, _rows_of(connection, USAGE_DAILY, counters, lane))),
        tuple(map(limit_of, _rows_of(connection, LIMIT_DAILY, counters, lane))),
        stored_positions.position(connection, topic, partition) or 0,
    )


def elsewhere(
    connection: Connection, lane: str, daily: Collection[Counter], limits: Collection[Counter]
) -> tuple[Sequence[DailyUsage], Sequence[LimitTotal]]:
    """Return what other lanes than `lane` have of these counters: of most nothing."""
    return (
        tuple(map(daily_of, _rows_of(connection, USAGE_DAILY, daily, lane, is_own=False))),
        tuple(map(limit_of, _rows_of(connection, LIMIT_DAILY, limits, lane, is_own=False))),
    )


def months(
    connection: Connection, topic: str, partition: int, lane: str, names: Collection[Counter]
) -> tuple[Totals, tuple[LimitTotal, ...]]:
    """Return what a lane has of these months, each named by its first day, with its position; and what others have.

    A month has no rows: it is the sum of its days', and its version the sum of theirs, which grows with each of them.
    """
    columns = LIMIT_DAILY.c
    summed = ("requests", "tokens", "version", "input_tokens", "output_tokens", "cost")
    figures = [totals.summed(columns[name]) for name in summed]
    own: list[LimitTotal] = []
    others: list[LimitTotal] = []
    position = stored_positions.position(connection, topic, partition) or 0
    by_month: dict[date, list[tuple[str, str]]] = {}
    for month, group_id, slug in sorted(names):
        by_month.setdefault(month, []).append((group_id, slug))
    place = (columns.lane, columns.group_id, columns.model_slug)
    for month, named in by_month.items():
        within = columns.day.between(*days.first_and_last(month, UsageLimitUnit.MONTH))
        for some in statements.chunks(named):
            of_these = tuple_(columns.group_id, columns.model_slug).in_(some)
            for row in connection.execute(select(*place, *figures).where(within, of_these).group_by(*place)):
                total = LimitTotal(Counter(month, row[1], row[2]), *map(int, row[3:]))
                (own if row[0] == lane else others).append(total)
    return Totals(lane, (), tuple(own), position), tuple(others)


def lanes_of(connection: Connection) -> list[tuple[str, int, str]]:
    """Return the topic, partition and name of every lane that has been counted."""
    return [(topic, one, f"{topic}/{one}") for topic, one in sorted(stored_positions.every(connection))]


def named_in_month(connection: Connection, lane: str, month: date, after: tuple[str, str]) -> list[tuple[str, str]]:
    """Return at most PAGE (group, slug) that a lane has rows of in a month, in their order, behind `after`."""
    columns = LIMIT_DAILY.c
    place = (columns.group_id, columns.model_slug)
    within = (columns.lane == lane, columns.day.between(*days.first_and_last(month, UsageLimitUnit.MONTH)))
    here = tuple_(*(bindparam(None, value, column.type) for value, column in zip(after, place, strict=True)))
    query = select(*place).where(*within, tuple_(*place) > here).distinct().order_by(*place).limit(PAGE)
    return [(row[0], row[1]) for row in connection.execute(query)]


def daily_behind(connection: Connection, after: Counter, to_day: date) -> tuple[DailyUsage, ...]:
    """Return at most PAGE daily usages behind `after` (exclusive), up to the day `to_day`, over all lanes, in order."""
    places = _behind(connection, USAGE_DAILY, after, to_day)
    rows = _rows_of(connection, USAGE_DAILY, places)
    return tuple(usage for _, usage in sorted(sums.whole_daily(map(daily_of, rows)).items()))


def limits_behind(connection: Connection, after: Counter, to_day: date) -> tuple[Totals, ...]:
    """Return the parts of as many limit totals in the same way, one `Totals` for each lane, with its position.

    A lane is a topic and a partition of it.
    """
    lanes: dict[str, list[LimitTotal]] = {}
    places = _behind(connection, LIMIT_DAILY, after, to_day)
    for row in _rows_of(connection, LIMIT_DAILY, places):
        lanes.setdefault(row.lane, []).append(limit_of(row))
    moved = {f"{topic}/{one}": row.next_offset for (topic, one), row in stored_positions.every(connection).items()}
    return tuple(Totals(lane, (), tuple(limits), moved.get(lane, 0)) for lane, limits in sorted(lanes.items()))


def tallies(connection: Connection, from_day: date, to_day: date) -> tuple[events.LedgerTally, ...]:
    """Sum daily usage per workspace and day, both days inclusive, in that order; the twin of `ledger.tallies`."""
    columns = USAGE_DAILY.c
    owner = (columns.workspace_id, columns.day)
    figures = ("requests", "input_tokens", "output_tokens")
    corrected = ("corrections", "corrected_input_tokens", "corrected_output_tokens")
    sums = [func.sum(columns[name]) for name in figures + corrected]
    query = select(*owner, *sums).where(columns.day.between(from_day, to_day)).group_by(*owner).order_by(*owner)
    return tuple(events.LedgerTally(row[0], row[1], *map(int, row[2:])) for row in connection.execute(query))


def _named(connection: Connection, events: Sequence[AnyEvent], counted: Totals) -> Totals:
    """Add to `counted` what its lane has of what `events`, none of them counted now, name beside it."""
    if not events:
        return counted
    daily = {sums.daily_counter(event) for event in events} - {sums.counter_of(usage) for usage in counted.daily}
    limits = {counter for event in events for counter in sums.limit_counters(event)}
    limits -= {total.counter for total in counted.limits}
    own_daily = _rows_of(connection, USAGE_DAILY, daily, counted.lane)
    own_limits = _rows_of(connection, LIMIT_DAILY, limits, counted.lane)
    return Totals(
        counted.lane,
        (*counted.daily, *map(daily_of, own_daily)),
        (*counted.limits, *map(limit_of, own_limits)),
        counted.position,
    )


def _rows_of(
    connection: Connection, table: Table, counters: Collection[Counter], lane: str | None = None, *, is_own: bool = True
) -> list[Row[Any]]:
    """Return the rows of these counters: of all lanes, of `lane`, or of all but `lane`."""
    query = _chosen(table, None if lane is None else is_own)
    of_lane = {} if lane is None else {"lane": lane}
    return [
        row
        for some in statements.chunks(sorted(counters))
        for row in connection.execute(query, {"places": some, **of_lane})
    ]


# Building a statement costs more than running it, and each batch asks.
@cache
def _chosen(table: Table, is_own: bool | None) -> Select[Any]:
    place = tuple_(table.c.day, table.c.group_id, table.c.model_slug)
    query = select(table).where(place.in_(bindparam("places", expanding=True)))
    if is_own is None:
        return query
    return query.where(table.c.lane == bindparam("lane") if is_own else table.c.lane != bindparam("lane"))


def _behind(connection: Connection, table: Table, after: Counter, to_day: date) -> list[Counter]:
    """Return the counters of at most PAGE rows behind `after`, over all lanes, in the order of counters."""
    columns = (table.c.day, table.c.group_id, table.c.model_slug)
    here = tuple_(*(bindparam(None, value, column.type) for value, column in zip(after, columns, strict=True)))
    query = select(*columns).where(tuple_(*columns) > here, table.c.day <= to_day).distinct()
    return [Counter(*row) for row in connection.execute(query.order_by(*columns).limit(PAGE))]
