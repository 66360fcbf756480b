"""Sums of usage over UTC days, from the daily tables and never from the ledger."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from heapq import merge
from typing import Any

from sqlalchemy import ColumnElement, Connection, CursorResult, RowMapping, bindparam, func, select, tuple_

from metering.core.consumed import Consumed, GroupingKey
from metering.core.sums import DailyIncrement
from metering.store.tables import KEY_DAILY, USAGE_DAILY
from runtime.database import statements
from schemas.money import Dimension

_COLUMNS = {
    Dimension.DAY: "day",
    Dimension.CUSTOMER: "external_entity_id",
    Dimension.MODEL: "model_slug",
    Dimension.GROUP: "group_id",
    Dimension.KEY: "api_key_prefix",
}
_PRICED_BY = ("model_slug", "external_entity_id", "day")


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What is summed: days, both inclusive, of one workspace or of all."""

    first: date
    last: date
    by: Sequence[Dimension] = ()
    workspace_id: str | None = None
    priced: bool = False
    """Whether rows are cut as finely as prices may differ: by slug, customer and day."""
    by_group: bool = False
    """Whether rows are cut by group too, so that they can be added along a tree."""
    group_id: str | None = None
    """The one group; None: all."""
    start: GroupingKey | None = None
    """The first place that is wanted, inclusive; None: from the beginning."""


@contextmanager
def consumed(connection: Connection, query: UsageQuery) -> Iterator[Iterator[Consumed]]:
    """Return the sums, sorted by place, without holding them all; what is not read to its end is closed."""
    with ExitStack() as closing:
        found = _consumption(connection, query, closing)
        if query.priced and Dimension.KEY not in query.by:
            yield merge(found, _repriced(connection, query, closing), key=lambda row: row.place)
        else:
            yield found


def largest(
    connection: Connection, query: UsageQuery, limit: int, among: Sequence[str] | None = None
) -> list[Consumed]:
    """Return the sums of at most `limit` places with the most requests, the most first.

    `among`: of those alone whose first dimension has one of these values. For sums that are neither by key nor priced.
    """
    columns = USAGE_DAILY.c
    cut = [columns[_COLUMNS[dimension]] for dimension in query.by]
    within = [columns.day.between(query.first, query.last), columns.workspace_id == query.workspace_id]
    within += [] if among is None else [cut[0].in_(among)]
    order = (func.sum(columns.requests).desc(), *cut)
    wanted = select(columns.workspace_id, *cut, *_sums(columns)).where(*within)
    found = connection.execute(wanted.group_by(columns.workspace_id, *cut).order_by(*order).limit(limit))
    return [_consumed(query, row, None) for row in found.mappings()]


def _consumption(connection: Connection, query: UsageQuery, closing: ExitStack) -> Iterator[Consumed]:
    if Dimension.KEY in query.by:
        columns, priced_day = KEY_DAILY.c, ["priced_day"] if query.priced else []
        sums = [*_sums(columns), func.max(columns.last_used_at).label("last_used_at")]
    else:
        columns, priced_day, sums = USAGE_DAILY.c, [], _sums(USAGE_DAILY.c)
    rows = closing.enter_context(_rows(connection, query, columns, [*_extra(query), *priced_day], sums))
    return (_consumed(query, row, row.get("priced_day", row.get("day"))) for row in rows.mappings())


def _repriced(connection: Connection, query: UsageQuery, closing: ExitStack) -> Iterator[Consumed]:
    """Return what moves corrections to the price of another day: each once taken away and once added."""
    columns = KEY_DAILY.c
    moved = columns.priced_day != columns.day
    rows = _rows(connection, query, columns, [*_extra(query), "priced_day"], _sums(columns), moved)
    for row in closing.enter_context(rows).mappings():
        there = _consumed(query, row, row["priced_day"])
        yield there._replace(figures=DailyIncrement(*(-figure for figure in there.figures)), priced_day=row["day"])
        yield there


def _sums(columns: Any) -> list[ColumnElement[Any]]:
    return [func.sum(columns[name]).label(name) for name in DailyIncrement._fields]


def _extra(query: UsageQuery) -> list[str]:
    return [*(_PRICED_BY if query.priced else ()), *(["group_id"] if query.by_group else [])]


def _rows(
    connection: Connection,
    query: UsageQuery,
    columns: Any,
    extra: Sequence[str],
    sums: Sequence[ColumnElement[Any]],
    *conditions: ColumnElement[bool],
) -> CursorResult[Any]:
    place = ["workspace_id", *(_COLUMNS[dimension] for dimension in query.by)]
    names = list(dict.fromkeys([*place, *extra]))
    cut = [columns[name] for name in names]
    within = [columns.day.between(query.first, query.last), *conditions]
    if query.workspace_id is not None:
        within.append(columns.workspace_id == query.workspace_id)
    if query.group_id is not None:
        within.append(columns.group_id == query.group_id)
    if query.start is not None:
        own = [columns[name] for name in place]
        start = [bindparam(None, value, column.type) for value, column in zip(query.start, own, strict=True)]
        within.append(tuple_(*own) >= tuple_(*start))
    wanted = select(*cut, *sums).where(*within).group_by(*cut).order_by(*cut)
    return connection.execute(wanted, execution_options=statements.STREAMED)


def _consumed(query: UsageQuery, row: RowMapping, priced_day: date | None) -> Consumed:
    return Consumed(
        place=(row["workspace_id"], *(row[_COLUMNS[dimension]] for dimension in query.by)),
        figures=DailyIncrement(*(int(row[name]) for name in DailyIncrement._fields)),
        last_used_at=row.get("last_used_at"),
        model_slug=row.get("model_slug"),
        external_entity_id=row.get("external_entity_id"),
        priced_day=priced_day,
        group_id=row.get("group_id"),
    )
