"""The database's time, which the processes of several machines go by."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from runtime.clock import SharedClock
from runtime.database import Database
from tollgate.roles import common


def off(clock: SharedClock, database: Database) -> timedelta:
    there = database.read_now(lambda connection: connection.execute(select(func.now())).scalar_one())
    return abs(clock() - there)


def test_a_role_begins_at_the_databases_time(postgres: Database) -> None:
    assert off(common.database_clock(postgres), postgres) < timedelta(seconds=2)


async def test_a_clock_that_has_drifted_is_set_again(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "_SET_EVERY_S", 0.01)
    clock = SharedClock(datetime(2020, 1, 1, tzinfo=UTC))
    keeping = asyncio.create_task(common.keep_time(clock, postgres))
    async with asyncio.timeout(10):
        while off(clock, postgres) > timedelta(seconds=2):  # noqa: ASYNC110 - the task tells nobody
            await asyncio.sleep(0.01)
    keeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await keeping
