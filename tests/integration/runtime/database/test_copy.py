"""COPY: all rows or none, and errors that are judged like those of any statement."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError

from runtime import outage
from runtime.config import log as config_log
from runtime.config.log import CONFIG_CHANGE
from runtime.database import copy as bulk
from runtime.database.engines import Database

NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
Row = tuple[Any, ...]


def row(version: int, kind: str = "group") -> Row:
    return (version, kind, "ä\t\\N\n", '{"a": [1, null]}', NOW)


def versions(opened: Database) -> list[int]:
    return [change.version for change in opened.read_now(lambda connection: config_log.rows_since(connection, 0))]


def test_rows_arrive_as_an_insert_would_bring_them(postgres: Database) -> None:
    assert postgres.write_now(lambda connection: bulk.copy(connection, CONFIG_CHANGE, [row(1)]))
    given = dict(zip(CONFIG_CHANGE.columns.keys(), row(2), strict=True)) | {"record": {"a": [1, None]}}
    postgres.write_now(lambda connection: connection.execute(insert(CONFIG_CHANGE).values(given)))
    copied, inserted = postgres.read_now(lambda connection: connection.execute(select(CONFIG_CHANGE)).all())
    assert copied[1:] == inserted[1:]


def test_where_a_key_is_there_no_row_goes_in_and_the_transaction_goes_on(postgres: Database) -> None:
    def work(connection: Connection) -> list[bool]:
        return [bulk.copy(connection, CONFIG_CHANGE, rows) for rows in ([row(1)], [row(2), row(1)], [row(3)])]

    assert postgres.write_now(work) == [True, False, True]
    assert versions(postgres) == [1, 3]


def test_a_session_that_ends_amid_the_rows_is_an_outage(postgres: Database) -> None:
    def rows(connection: Connection) -> Iterator[Row]:
        yield row(1)
        own = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        postgres.write_now(lambda other: other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": own}))
        yield from map(row, range(2, 100_000))

    with pytest.raises(DBAPIError) as raised:
        postgres.write_now(lambda connection: bulk.copy(connection, CONFIG_CHANGE, rows(connection)))
    assert outage.is_transient(raised.value)
    assert versions(postgres) == []


def test_a_value_that_does_not_fit_is_no_outage(postgres: Database) -> None:
    with pytest.raises(DBAPIError) as raised:
        postgres.write_now(lambda connection: bulk.copy(connection, CONFIG_CHANGE, [row(1, kind="x" * 17)]))
    assert not outage.is_transient(raised.value)
