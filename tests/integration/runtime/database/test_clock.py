"""The database's time, which the processes of several machines go by."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, func, select

from runtime.clock import SharedClock
from runtime.database import engines as databases
from runtime.database.engines import Database, now, present
from tollgate.installation import InstallationError
from tollgate.roles import base

NEAR = timedelta(minutes=1)
"""Nearer than any clock that was not set, and farther than a question takes on a busy machine."""


def off(clock: SharedClock, database: Database) -> timedelta:
    there = database.read_now(lambda connection: connection.execute(select(func.now())).scalar_one())
    return abs(clock() - there)


def test_the_present_goes_on_while_a_transaction_waits(postgres: Database) -> None:
    def wait(connection: Connection) -> tuple[timedelta, timedelta]:
        began, before = now(connection, never), present(connection, never)
        connection.execute(select(func.pg_sleep(0.01)))
        return now(connection, never) - began, present(connection, never) - before

    stands, goes_on = postgres.write_now(wait)
    assert (stands, goes_on >= timedelta(milliseconds=10)) == (timedelta(0), True)


def never() -> datetime:
    raise AssertionError("the clocks of several machines differ")


def test_a_role_begins_at_the_databases_time(postgres: Database) -> None:
    assert off(base.database_clock(postgres), postgres) < NEAR


def test_a_role_that_begins_while_the_database_is_away_says_so_in_a_line() -> None:
    with (
        databases.postgres("postgresql://nobody@127.0.0.1:1/nothing") as away,
        pytest.raises(InstallationError, match="TOLLGATE_DATABASE_URL cannot be used") as raised,
    ):
        base.database_clock(away)
    assert "\n" not in str(raised.value)


async def test_a_clock_that_has_drifted_is_set_again(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_SET_EVERY_S", 0.01)
    clock = SharedClock(datetime(2020, 1, 1, tzinfo=UTC))
    keeping = asyncio.create_task(base.keep_time(clock, postgres))
    async with asyncio.timeout(60):
        while off(clock, postgres) > NEAR:  # noqa: ASYNC110 - the task tells nobody
            await asyncio.sleep(0.01)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
