"""Brings many rows into a table of PostgreSQL by its COPY: for the client by far the cheapest way.

Never settles a conflict: where one row's key is already there, none of the rows goes in.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Connection, Date, DateTime, Integer, String, Table, TypeDecorator
from sqlalchemy.exc import DBAPIError

_UNIQUE_VIOLATION = "23505"

_TYPES: tuple[tuple[type[Any], str], ...] = (
    (JSON, "text"),  # what is sent of it is its text
    (BigInteger, "int8"),
    (Integer, "int4"),
    (Boolean, "bool"),
    (DateTime, "timestamptz"),
    (Date, "date"),
    (String, "text"),
)


def copy(connection: Connection, table: Table, rows: Iterable[Sequence[Any]]) -> bool:
    """Insert `rows`, their values in the order of the columns, JSON as text; or none where a key is already there.

    Return whether they are in. Raises SQLAlchemy's DBAPIError, as its own statements do.
    """
    statement, types = _how(table)
    driver: Any = connection.dialect.loaded_dbapi
    below: Any = connection.connection
    with connection.begin_nested() as attempt:
        try:
            with _translated(driver, statement), below.cursor() as cursor, cursor.copy(statement) as sending:
                sending.set_types(types)
                for row in rows:
                    sending.write_row(row)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != _UNIQUE_VIOLATION:
                raise
            attempt.rollback()
            return False
    return True


@cache
def _how(table: Table) -> tuple[str, list[str]]:
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    types = [_type(column.type) for column in table.columns]
    return f'COPY "{table.name}" ({columns}) FROM STDIN (FORMAT BINARY)', types


def _type(kind: Any) -> str:
    plain = kind.impl if isinstance(kind, TypeDecorator) else kind
    return next(name for known, name in _TYPES if isinstance(plain, known))


@contextmanager
def _translated(driver: Any, statement: str) -> Iterator[None]:
    """Raise the driver's errors as SQLAlchemy does for its own statements: `runtime.outage` judges those."""
    try:
        yield
    except driver.Error as error:
        raise DBAPIError.instance(statement, None, error, driver.Error, hide_parameters=True) from error
