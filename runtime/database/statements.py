"""What every store's SQL needs that differs by engine: inserts that name a conflict, and how much is taken at once."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Column, Delete, Table, bindparam, delete, func, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

Item = TypeVar("Item")

STREAMED: dict[str, Any] = {"yield_per": 1000}
"""Execution options of a query whose rows are read one after the other, never all held at once."""

_CHUNK = 500  # keys in one query: far below every engine's bound on parameters


def insert_into(engine: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an INSERT that can name its conflict, in the words of `engine` (SQLAlchemy's name of it)."""
    return postgresql.insert(table) if engine == "postgresql" else sqlite.insert(table)


def insert_arrays(table: Table) -> postgresql.Insert:
    """Begin an INSERT of PostgreSQL's that takes all its rows at once, in order: each column a list (`columns_of`)."""
    names = [column.name for column in table.columns]
    arrays = [bindparam(column.name, type_=postgresql.ARRAY(column.type)) for column in table.columns]
    columns = (Column(column.name, column.type) for column in table.columns)
    rows = func.unnest(*arrays).table_valued(*columns).render_derived()
    return postgresql.insert(table).from_select(names, select(*rows.c))


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turn rows, at least one and all with the same names, into a list of values for each name."""
    return {name: [row[name] for row in rows] for name in rows[0]}


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
