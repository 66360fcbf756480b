"""What every store's SQL needs that differs by engine: inserts that name a conflict, and how much is taken at once."""

from collections.abc import Iterator, Sequence
from datetime import date
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Column, Delete, Table, Text, bindparam, cast, delete, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

Item = TypeVar("Item")

STREAMED: dict[str, Any] = {"yield_per": 1000}
"""Execution options of a query whose rows are read one after the other, never all held at once."""

_CHUNK = 500  # keys in one query: far below every engine's bound on parameters


def insert_into(engine: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an INSERT that can name its conflict, in the words of `engine` (SQLAlchemy's name of it)."""
    return postgresql.insert(table) if engine == "postgresql" else sqlite.insert(table)


def insert_all(engine: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an INSERT of whole rows, as many as there may be, in their order: `given` makes its parameters.

    On PostgreSQL it takes each column as one array: one text for any number of rows, which neither side reads twice.
    """
    if engine != "postgresql":
        return insert_into(engine, table)
    names = [column.name for column in table.columns]
    arrays = [cast(bindparam(each.name, type_=Text), postgresql.ARRAY(each.type)) for each in table.columns]
    columns = (Column(column.name, column.type) for column in table.columns)
    rows = func.unnest(*arrays).table_valued(*columns).render_derived()
    return postgresql.insert(table).from_select(names, select(*rows.c))


def given(engine: str, table: Table, rows: Sequence[Sequence[Any]]) -> Any:
    """Return what `insert_all` is given of rows, at least one and each with all columns in the table's order."""
    names = [column.name for column in table.columns]
    if engine != "postgresql":
        return [dict(zip(names, row, strict=True)) for row in rows]
    # The driver would take 1 us for each value: of a column many are the same, and they are written once.
    return {name: _array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def _array(values: Sequence[Any]) -> str:
    """Return them in PostgreSQL's own form (its documentation, 8.15.6), which no setting of a session changes."""
    texts = {value: _element(value) for value in set(values)}
    return "{" + ",".join([texts[value] for value in values]) + "}"


def _element(value: str | int | date | None) -> str:
    if isinstance(value, str):
        escaped = value.replace("\\", r"\\").replace('"', r"\"")
        return f'"{escaped}"'
    return "NULL" if value is None else str(value)  # dates and times in the form of ISO 8601, with their zone


def removal(table: Table, before: date, limit: int) -> Delete:
    """Remove at most `limit` rows of days before `before` from a table whose primary key begins with its `day`.

    Never waits for a lock: rows that another transaction holds are left for the next time.
    """
    key = list(table.primary_key.columns)
    old = select(*key).where(table.c.day < before).order_by(*key).limit(limit).with_for_update(skip_locked=True)
    # As a subquery PostgreSQL may run it again for each row, and remove all: in WITH it runs once. Nested, for SQLite
    # counts what is removed only where a statement begins with DELETE.
    return delete(table).where(tuple_(*key).in_(select(old.cte("old", nesting=True))))


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut `items` so that one query names no more than an engine allows."""
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]


def batches(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """Return `items`, as many as there may be, in lists of at most `size`; no more than one list is held."""
    while some := list(islice(items, size)):
        yield some
