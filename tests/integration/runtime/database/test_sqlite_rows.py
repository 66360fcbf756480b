"""Many rows into SQLite at once: as its own inserts would bring them, all or none."""

from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select
from sqlalchemy.dialects import sqlite

from runtime.database import engines, sqlite_rows
from runtime.database.engines import METADATA, UtcDateTime
from tests.unit.webhooks import kit
from webhooks.store.tables import DELIVERY_EVENT

Row = tuple[str, str, str, str, int, int]


def row(number: int) -> Row:
    return ("2026-01-01", "ws", f"key-{number}", "delivery", number, 2)


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 49, 50, 51, 161])
def test_all_rows_go_in_where_all_are_new_and_none_where_one_is_not(tmp_path: Path, count: int) -> None:
    rows = [row(number) for number in range(count)]

    def insert(connection: Connection, some: list[Row]) -> tuple[bool, int]:
        done = sqlite_rows.insert(connection, DELIVERY_EVENT, some)
        return done, connection.execute(select(func.count()).select_from(DELIVERY_EVENT)).scalar_one()

    with engines.sqlite(tmp_path / "rows.db") as opened:
        opened.write_now(lambda connection: METADATA.create_all(connection, [DELIVERY_EVENT]))
        assert opened.write_now(partial(insert, some=rows)) == (True, count)
        for new in (1, 70) if rows else ():
            one_is_there = [*(row(1000 + number) for number in range(new)), rows[-1]]
            assert opened.write_now(partial(insert, some=one_is_there)) == (False, count)
        stored = opened.read_now(lambda connection: connection.execute(select(DELIVERY_EVENT)).all())
    assert sorted([tuple(each)[1:] for each in stored]) == sorted([each[1:] for each in rows])
    assert {each.day for each in stored} <= {kit.START.date()}


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
        datetime(1, 1, 1, tzinfo=UTC),
    ],
)
def test_a_time_is_kept_as_the_column_type_keeps_it(moment: datetime) -> None:
    process = UtcDateTime().dialect_impl(sqlite.dialect()).bind_processor(sqlite.dialect())
    assert process is not None
    assert sqlite_rows.moment(moment) == process(moment)
