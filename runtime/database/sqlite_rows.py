"""Brings many rows into a table of SQLite by few statements.

Never settles a conflict: where one row's key is already there, none of the rows goes in.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import sqlite

_DIALECT = sqlite.dialect(paramstyle="qmark")
_ROWS = (50, 10, 1)
"""How many rows one statement takes, of the largest first. Each run of a statement lets go of the interpreter once, and
may wait 5 ms until the event loop gives it back; and each text of its own would have to be prepared anew."""


def insert(connection: Connection, table: Table, rows: Sequence[Sequence[Any]]) -> bool:
    """Insert `rows`, their values in the order of the columns and as SQLite keeps them; or none where a key is there.

    Return whether they are in. Raises SQLAlchemy's DBAPIError.
    """
    done = inserted = 0
    with connection.begin_nested() as attempt:
        for size in _ROWS:
            count = (len(rows) - done) // size
            if count:
                together = [_flat(rows[first : first + size]) for first in range(done, done + count * size, size)]
                inserted += connection.exec_driver_sql(_statement(table, size), together).rowcount
                done += count * size
        if inserted == len(rows):
            return True
        attempt.rollback()
    return False


def moment(value: datetime) -> str:
    """Return an aware time as `UtcDateTime` keeps it."""
    if value.tzinfo is not UTC:
        value = value.astimezone(UTC)
    return value.isoformat(" ", "microseconds")[:-6]  # without its zone


def text(value: Any) -> str | None:
    """Return what SQLAlchemy has a column of JSON keep of a value; None is no value."""
    return None if value is None else json.dumps(value)


def _flat(rows: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(rows))


@cache
def _statement(table: Table, rows: int) -> str:
    names = [column.name for column in table.columns]
    one = str(sqlite.insert(table).on_conflict_do_nothing().compile(dialect=_DIALECT, column_keys=names))
    row = f"({', '.join('?' * len(names))})"
    return one.replace(row, ", ".join([row] * rows))
