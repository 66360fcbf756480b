"""Adds what a batch's new events count to a lane's parts of daily usage and limit totals (counting 4)."""

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, case, func
from sqlalchemy.sql.dml import ReturningInsert

from domain.sources import EventBatch
from metering.core import sums
from metering.core.sums import LimitTotal
from metering.store.tables import LIMIT_DAILY, USAGE_DAILY, daily_of, limit_of
from runtime.database import statements
from schemas.daily import DailyUsage
from schemas.spooled import AnyEvent


def add_daily(
    connection: Connection, batch: EventBatch, increments: sums.Increments, new: Sequence[AnyEvent], now: datetime
) -> tuple[DailyUsage, ...]:
    """Add to daily usage; return what was added to as it is now. `new` are the events that the increments are of."""
    owners = {event.group_id: event for event in new}
    changed = (1, batch.next_offset, now)
    rows = []
    for (day, group_id, slug), increment in sorted(increments.daily.items()):
        owner = owners[group_id]
        place = (day, batch.lane, group_id, slug)
        rows.append((*place, owner.workspace_id, owner.external_entity_id, *increment, *changed))
    return tuple(map(daily_of, _add(connection, USAGE_DAILY, rows, sums.DailyIncrement._fields)))


def add_limits(
    connection: Connection, batch: EventBatch, increments: sums.Increments, now: datetime
) -> tuple[LimitTotal, ...]:
    """Add to limit totals; return what was added to as it is now."""
    changed = (1, batch.next_offset, now)
    rows = []
    for (day, group_id, slug), increment in sorted(increments.limits.items()):
        *figures, cost = increment
        rows.append((day, batch.lane, group_id, slug, *figures, min(cost, sums.MOST_COST), *changed))
    return tuple(map(limit_of, _add(connection, LIMIT_DAILY, rows, sums.LimitIncrement._fields)))


def summed(column: ColumnElement[int]) -> ColumnElement[Any]:
    """Sum a column. SQLite's sum of whole numbers raises where it overflows, which only costs can come to."""
    return func.sum(column * 1.0) if column.key == "cost" else func.sum(column)


def _add(
    connection: Connection, table: Table, rows: Sequence[tuple[Any, ...]], sums: tuple[str, ...]
) -> Sequence[Row[Any]]:
    """Add `rows`, in the table's columns, to the rows that are there; return each as it is now, its version grown by 1.

    Rows are locked in the given order, which is sorted: so two workers with the same counters never deadlock.
    """
    if not rows:
        return []
    engine = connection.dialect.name
    return connection.execute(_adding(engine, table, sums), statements.given(engine, table, rows)).all()


# Building a statement costs as much as running it on a small batch, so those of every transaction are built once.
@cache
def _adding(engine: str, table: Table, sums: tuple[str, ...]) -> ReturningInsert[Any]:
    statement = statements.insert_all(engine, table)
    given = statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={
            **{name: _plus(table.c[name], given[name]) for name in sums},
            "version": table.c.version + 1,
            "changed_at": given.changed_at,
            "updated_at": given.updated_at,
        },
    )
    return statement.returning(*table.c)


def _plus(kept: ColumnElement[int], given: ColumnElement[int]) -> ColumnElement[int]:
    """Add, but no cost beyond the most that is kept: a price of a lab's may be anything, and no sum may overflow."""
    if kept.key != "cost":
        return kept + given
    return case((kept > sums.MOST_COST - given, sums.MOST_COST), else_=kept + given)
