"""PostgreSQL as every process uses it: nothing commits late, a restart heals, and no password shows."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from runtime import outage
from runtime.database import engines as databases
from runtime.database.engines import Database, DatabaseUrlError, TransactionTooLongError

PASSWORD = "sEcret-of-the-lab"
WITHIN_S = 90

STOPS = """
import os, signal, sys
from sqlalchemy import text
from runtime import outage
from runtime.database import engines as database
database._IDLE_BOUND_S = 0.5
def work(connection):
    connection.execute(text("INSERT INTO kept VALUES (1)"))
    print("worked", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
with database.postgres(sys.argv[1]) as opened:
    try:
        opened.write_now(work)
    except Exception as error:
        print("transient" if outage.is_transient(error) else repr(error))
"""


@pytest.fixture
def opened(postgres_url: str) -> Any:
    with databases.postgres(postgres_url) as opened:
        opened.write_now(lambda connection: connection.execute(text("CREATE TABLE kept (id INTEGER PRIMARY KEY)")))
        yield opened


def insert(connection: Connection, id_: int = 1) -> None:
    connection.execute(text("INSERT INTO kept VALUES (:id)"), {"id": id_})


def kept(opened: Database) -> list[int]:
    return list(
        opened.read_now(lambda connection: connection.execute(text("SELECT id FROM kept ORDER BY id")).scalars())
    )


def end_sessions(opened: Database, which: str = "true") -> None:
    """End the sessions of the database's other connections, as a restart does."""
    query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND {which}"
    with opened.engine.connect() as connection:
        connection.execute(text(f"{query} AND pid <> pg_backend_pid()"))


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)  # another process says nothing; the loop is bounded


def failure(work: Callable[[], object]) -> DBAPIError:
    with pytest.raises(DBAPIError) as raised:
        work()
    return raised.value


def test_a_process_that_is_stopped_before_its_commit_finds_it_refused(opened: Database, postgres_url: str) -> None:
    command = [sys.executable, "-c", STOPS, postgres_url]
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stopped:
        try:
            assert stopped.stdout is not None
            assert stopped.stdout.readline() == "worked\n"
            until(lambda: opened.write_now(lambda one: one.execute(text(sessions)).scalar_one()) == 0, "still there")
            os.kill(stopped.pid, signal.SIGCONT)
            assert stopped.stdout.read() == "transient\n"
        finally:
            stopped.kill()
    assert kept(opened) == []


def test_the_bounds_add_up_and_the_server_has_them(opened: Database) -> None:
    def shown(connection: Connection) -> dict[str, Any]:
        names = ("statement_timeout", "idle_in_transaction_session_timeout", "TimeZone", "application_name")
        return {name: connection.execute(text(f"SHOW {name}")).scalar_one() for name in names}

    writing = opened.write_now(shown)
    assert writing == {
        "statement_timeout": "10s",
        "idle_in_transaction_session_timeout": "5s",
        "TimeZone": "UTC",
        "application_name": "tollgate",
    }
    assert (opened._commit_within_s, databases.TRANSACTION_BOUND_S) == (30 - 10 - 5, 30)
    assert opened.read_now(shown)["application_name"] == "tollgate read"


def test_a_transaction_that_took_too_long_is_rolled_back(opened: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened, "_commit_within_s", 0)
    with pytest.raises(TransactionTooLongError):
        opened.write_now(insert)
    assert kept(opened) == []


def test_a_statement_that_takes_too_long_is_ended(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(databases, "_STATEMENT_BOUND_S", 0.1)
    with databases.postgres(postgres_url) as opened:
        error = failure(lambda: opened.write_now(lambda connection: connection.execute(text("SELECT pg_sleep(20)"))))
        assert outage.is_transient(error)
        opened.change_schema(lambda connection: connection.execute(text("SELECT pg_sleep(0.2)")))


def test_a_restarted_server_is_not_even_noticed(opened: Database) -> None:
    opened.write_now(insert)
    assert kept(opened) == [1]
    end_sessions(opened)
    opened.write_now(lambda connection: insert(connection, 2))
    end_sessions(opened)
    assert kept(opened) == [1, 2]


def test_a_session_that_ends_within_a_transaction_takes_it_along(opened: Database) -> None:
    def work(connection: Connection) -> None:
        insert(connection)
        end_sessions(opened, "state = 'idle in transaction'")
        connection.execute(text("SELECT 1"))

    assert outage.is_transient(failure(lambda: opened.write_now(work)))
    opened.write_now(insert)
    assert kept(opened) == [1]


async def test_several_write_at_once(opened: Database) -> None:
    meeting = threading.Barrier(2)

    def work(connection: Connection, id_: int) -> None:
        insert(connection, id_)
        meeting.wait(WITHIN_S)

    await asyncio.gather(*(opened.write(partial(work, id_=id_)) for id_ in (1, 2)))
    assert kept(opened) == [1, 2]


def test_what_is_read_is_of_one_moment(opened: Database) -> None:
    def work(connection: Connection) -> list[int]:
        count = text("SELECT count(*) FROM kept")
        before = connection.execute(count).scalar_one()
        opened.write_now(insert)
        return [before, connection.execute(count).scalar_one()]

    assert opened.read_now(work) == [0, 0]
    assert kept(opened) == [1]


def test_a_reader_cannot_write(opened: Database) -> None:
    assert not outage.is_transient(failure(lambda: opened.read_now(insert)))


def test_what_stays_wrong_is_no_outage(opened: Database) -> None:
    opened.write_now(insert)
    assert not outage.is_transient(failure(lambda: opened.write_now(insert)))
    assert not outage.is_transient(failure(lambda: opened.write_now(lambda one: one.execute(text("SELECT nothing")))))
    assert not outage.is_transient(failure(lambda: opened.write_now(lambda one: one.execute(text("SELEC")))))


async def test_a_deadlock_is_an_outage_for_the_one_that_lost(opened: Database) -> None:
    meeting = threading.Barrier(2)

    def work(connection: Connection, ids: tuple[int, int]) -> None:
        for place, id_ in enumerate(ids):
            insert(connection, id_)
            if not place:
                meeting.wait(WITHIN_S)

    tries = [opened.write(partial(work, ids=ids)) for ids in ((1, 2), (2, 1))]
    lost = [result for result in await asyncio.gather(*tries, return_exceptions=True) if result is not None]
    # The one that waited behind the loser may go on, so only one of the two has failed.
    assert [outage.is_transient(error) for error in lost if isinstance(error, BaseException)] == [True]
    assert kept(opened) == [1, 2]


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://tollgate:{PASSWORD}@localhost/tollgate",
        f"postgresql://tollgate:{PASSWORD}/@localhost/tollgate",
        f"postgresql://tollgate:12/{PASSWORD}@localhost/tollgate",
        f"postgresql://tollgate:a@{PASSWORD}@localhost/tollgate",
        f"postgresql://tollgate:{PASSWORD}%zz@localhost/tollgate",
        f"postgresql://tollgate@localhost/tollgate?pasword={PASSWORD}",
        f"host=localhost password={PASSWORD}",
        "",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_a_word_of_it(url: str) -> None:
    with pytest.raises(DatabaseUrlError) as refused:
        databases.open_postgres(url)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize("host", ["127.0.0.1:1", "nowhere.invalid"])
def test_no_error_and_no_name_shows_the_password(host: str) -> None:
    with databases.postgres(f"postgresql://tollgate:{PASSWORD}@{host}/tollgate") as opened:
        error = failure(lambda: opened.write_now(insert))
        shown = [
            str(error),
            repr(error),
            str(error.orig),
            *map(repr, opened.engines),
            *(str(one.url) for one in opened.engines),
        ]
    assert outage.is_transient(error)
    assert PASSWORD not in "".join(shown)


def test_no_error_shows_what_was_to_be_stored(opened: Database) -> None:
    wrong = text("INSERT INTO kept VALUES (:secret)")
    error = failure(lambda: opened.write_now(lambda connection: connection.execute(wrong, {"secret": None})))
    assert "parameters hidden" in str(error)
