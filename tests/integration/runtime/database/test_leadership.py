"""The advisory lock of PostgreSQL: one holder, and none who believes it without asking."""

import asyncio
import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from metering.store import day_partitions
from runtime.config import log as config_log
from runtime.database import engines as databases
from runtime.database import leadership
from runtime.database.engines import Database
from runtime.database.leadership import LeadershipLostError, PostgresLeadership
from tollgate import migrations

ENDED = """
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database ON pg_database.oid = database
    WHERE locktype = 'advisory' AND datname = current_database()
"""


def end_the_holder(database: Database) -> None:
    """End the connection that holds the lock, as a network or an operator would."""
    ended = database.write_now(lambda connection: connection.execute(text(ENDED)).all())
    assert len(ended) == 1


async def taken(one: PostgresLeadership) -> None:
    """Wait until the server has noticed that the one before is gone."""
    async with asyncio.timeout(60):
        while not await one.take():  # noqa: ASYNC110 (the server tells nobody)
            await asyncio.sleep(0.01)


async def test_two_installations_share_a_database_each_in_a_schema_of_its_own(postgres_url: str) -> None:
    places = [f"{postgres_url}?options=-csearch_path%3D{schema}" for schema in ("public", "second")]
    with databases.postgres(places[0]) as first, databases.postgres(places[1]) as second:
        first.write_now(lambda connection: connection.execute(text("CREATE SCHEMA second")))
        for one in (first, second):
            assert "no schema yet" in migrations.check(one)[0]
            migrations.upgrade(one)
            today = datetime.now(UTC).date()
            one.write_now(lambda connection, today=today: day_partitions.ensure(connection, today))  # type: ignore[misc]
            assert one.read_now(day_partitions.open_days).holds(today)
        first.write_now(lambda connection: config_log.raise_epoch(connection, 0))
        assert second.read_now(config_log.current_version) == 0
        leaders = [PostgresLeadership(one, "relay") for one in (first, second)]
        assert [await one.take() for one in leaders] == [True, True]
        with databases.postgres(places[1]) as another, databases.postgres(postgres_url) as older:
            rival = PostgresLeadership(another, "relay")
            assert not await rival.take()
            await rival.release()
            held = text("SELECT pg_try_advisory_lock(hashtextextended('tollgate relay', 0))")
            assert not older.read_now(lambda connection: connection.scalar(held)), "the release before names it so"
        for leader in leaders:
            await leader.release()


async def test_one_at_a_time(postgres: Database, postgres_migrated_url: str) -> None:
    with databases.postgres(postgres_migrated_url) as elsewhere:
        first, second = PostgresLeadership(postgres, "a"), PostgresLeadership(elsewhere, "a")
        other = PostgresLeadership(elsewhere, "b")
        assert await first.take()
        assert await first.take()
        assert not await second.take()
        assert await other.take()
        await first.check()
        await first.release()
        assert await second.take()
        await second.release()
        await other.release()


async def test_the_server_looks_after_the_connection(postgres: Database) -> None:
    one = PostgresLeadership(postgres, "a")
    assert await one.take()
    assert one._session is not None
    assert one._session._connection is not None
    assert "Checked out connections: 0" in postgres.engine.pool.status()  # it is outside, so that nobody else gets it
    shown = [one._session._connection.scalar(text(f"SHOW {name}")) for name in leadership._KEEPALIVES]
    assert shown == list(leadership._KEEPALIVES.values())
    await one.release()


async def test_who_never_took_it_does_not_have_it(postgres: Database) -> None:
    one = PostgresLeadership(postgres, "a")
    with pytest.raises(LeadershipLostError):
        await one.check()
    await one.release()


async def test_a_lost_connection_is_noticed_and_frees_the_lock(postgres: Database) -> None:
    first, second = PostgresLeadership(postgres, "a"), PostgresLeadership(postgres, "a")
    assert await first.take()
    end_the_holder(postgres)
    await taken(second)
    with pytest.raises(LeadershipLostError):
        await first.check()
    await first.release()
    assert not await first.take()
    await first.release()
    await second.release()


async def test_a_late_answer_is_asked_for_again(postgres: Database) -> None:
    readings = iter([0.0, 100.0, 100.0, 101.0])  # the process was stopped while the first answer came
    one = PostgresLeadership(postgres, "a", steady=lambda: next(readings))
    assert await one.take()
    await one.check()
    assert next(readings, None) is None
    await one.release()


async def test_a_database_that_does_not_answer_is_not_waited_for(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    one = PostgresLeadership(postgres, "a", ask_s=0.2)
    assert await one.take()
    monkeypatch.setattr(leadership._Session, "ask", lambda _: answers.wait(10))
    with pytest.raises(LeadershipLostError, match="did not answer"):
        await one.check()
    await one.release()
    answers.set()
    second = PostgresLeadership(postgres, "a")
    await taken(second)  # the first one's thread gives it back when it can
    await second.release()
