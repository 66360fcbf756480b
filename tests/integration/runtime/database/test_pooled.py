"""Behind PgBouncer in transaction mode everything holds that holds without, and a pooler nobody told of is refused."""

from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from infra.local import pgbouncer
from infra.local.pgbouncer import Pooler
from runtime.database import engines, postgres
from runtime.database.engines import TRANSACTION_BOUND_S, Database
from runtime.database.leadership import PostgresLeadership
from tests.support import services

SETTINGS = ("statement_timeout", "idle_in_transaction_session_timeout", "TimeZone", "application_name")


@pytest.fixture
def pooled_url(pooler: Pooler, postgres_migrated_url: str) -> str:
    """The address of the test's database at the pooler."""
    return pooler.url(urlsplit(postgres_migrated_url).path)


@pytest.fixture
def pooled(pooled_url: str, postgres_migrated_url: str) -> Iterator[Database]:
    """The test's database, opened as behind a pooler."""
    with engines.postgres(pooled_url, postgres_migrated_url) as opened:
        yield opened


def in_force(connection: Connection) -> list[str]:
    """Return the values of SETTINGS in this transaction."""
    return [str(connection.execute(text(f"SHOW {name}")).scalar_one()) for name in SETTINGS]


def test_each_transaction_has_its_bounds_and_leaves_none_of_them_to_the_next_client(
    pooled: Database, pooled_url: str, postgres_migrated_url: str
) -> None:
    with engines.postgres(postgres_migrated_url) as direct:
        for _ in range(3):  # one after the other on the same connection of the pooler's
            assert pooled.write_now(in_force) == direct.write_now(in_force)
            assert pooled.read_now(in_force) == direct.read_now(in_force)
    with closing(psycopg.connect(pooled_url, autocommit=True)) as next_client:
        assert next_client.execute("SHOW statement_timeout").fetchone() == ("0",)
        assert next_client.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("0",)


def test_a_reader_cannot_write_and_sees_one_moment(pooled: Database) -> None:
    assert pooled.read_now(lambda view: view.execute(text("SHOW transaction_isolation")).scalar_one()) == (
        "repeatable read"
    )
    with pytest.raises(DBAPIError, match="read-only transaction"):
        pooled.read_now(lambda view: view.execute(text("CREATE TABLE written (one int)")))


def test_a_schema_is_changed_without_a_bound(pooled: Database) -> None:
    assert pooled.change_schema(lambda connection: in_force(connection)[0]) == "0"


def _run_often(connection: Connection) -> None:
    for _ in range(7):  # psycopg prepares what it has run five times
        connection.execute(text("SELECT CAST(:one AS int)"), {"one": 1})


def _in_turn(first: Database, second: Database) -> None:
    for _ in range(3):
        first.write_now(_run_often)
        second.write_now(_run_often)


def test_no_statement_is_prepared_that_another_connection_would_miss(
    pooled: Database, pooled_url: str, postgres_migrated_url: str
) -> None:
    with engines.postgres(pooled_url, postgres_migrated_url) as another:
        _in_turn(pooled, another)


def test_prepared_statements_fail_there_where_a_setting_asks_for_them(
    pooled_url: str, postgres_migrated_url: str
) -> None:
    with (
        engines.postgres(pooled_url, postgres_migrated_url, 5) as one,
        engines.postgres(pooled_url, postgres_migrated_url, 5) as another,
        pytest.raises(DBAPIError, match="prepared statement"),
    ):
        _in_turn(one, another)


async def test_one_leads_at_a_time(pooled: Database, pooled_url: str, postgres_migrated_url: str) -> None:
    with engines.postgres(pooled_url, postgres_migrated_url) as elsewhere:
        first, second = PostgresLeadership(pooled, "a"), PostgresLeadership(elsewhere, "a")
        try:
            assert await first.take()
            assert not await second.take()
            await first.check()
        finally:
            await first.release()
            await second.release()


async def test_two_would_lead_at_once_without_the_direct_address(pooled_url: str) -> None:
    """What the check at start keeps from happening."""
    with engines.postgres(pooled_url) as one, engines.postgres(pooled_url) as other:
        first, second = PostgresLeadership(one, "a"), PostgresLeadership(other, "a")
        try:
            assert [await first.take(), await second.take()] == [True, True]
        finally:
            await first.release()
            await second.release()


def test_a_pooler_that_shares_its_connections_is_refused(pooled_url: str, postgres_migrated_url: str) -> None:
    with (
        engines.postgres(pooled_url) as untold,
        pytest.raises(postgres.PooledError, match="TOLLGATE_DATABASE_URL leads to a pooler"),
    ):
        postgres.check_sessions(untold)
    with (
        engines.postgres(pooled_url, pooled_url) as twice,
        pytest.raises(postgres.PooledError, match="TOLLGATE_DATABASE_DIRECT_URL leads to a pooler"),
    ):
        postgres.check_sessions(twice)
    with engines.postgres(postgres_migrated_url) as direct, engines.postgres(pooled_url, postgres_migrated_url) as told:
        postgres.check_sessions(direct)
        postgres.check_sessions(told)


def test_a_pool_in_session_mode_needs_no_second_address(
    pgbouncer_installed: None, postgres_server: str, postgres_migrated_url: str
) -> None:
    with (
        services.folder("pgbouncer") as folder,
        pgbouncer.running(folder, postgres_server, pool_mode="session") as by_session,
        engines.postgres(by_session.url(urlsplit(postgres_migrated_url).path)) as opened,
    ):
        postgres.check_sessions(opened)
        assert opened.write_now(in_force)[2:] == ["UTC", "tollgate"]


def test_the_bound_of_a_transaction_is_the_same(pooled: Database) -> None:
    statement_s, idle_s = (int(value.removesuffix("s")) for value in pooled.write_now(in_force)[:2])
    assert pooled._commit_within_s + statement_s + idle_s == TRANSACTION_BOUND_S
