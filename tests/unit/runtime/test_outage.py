"""What is ridden out, how long the pauses are, and what is said."""

import logging
import sqlite3

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from runtime import outage
from runtime.database.engines import TransactionTooLongError
from runtime.outage import Outage


def operational(code: int | None) -> OperationalError:
    cause = sqlite3.OperationalError("away")
    if code is not None:
        cause.sqlite_errorcode = code
    return OperationalError("SELECT", None, cause)


def test_what_passes_by_itself_is_told_from_what_does_not() -> None:
    assert outage.is_transient(operational(sqlite3.SQLITE_BUSY))
    assert outage.is_transient(operational(sqlite3.SQLITE_FULL))
    assert outage.is_transient(operational(None))
    assert outage.is_transient(TransactionTooLongError())
    assert not outage.is_transient(operational(sqlite3.SQLITE_ERROR))
    assert not outage.is_transient(ValueError())


@pytest.mark.parametrize(
    ("state", "passes"),
    [
        ("08006", True),  # connection failure
        ("40001", True),  # serialization failure
        ("40P01", True),  # deadlock
        ("53300", True),  # too many connections
        ("53100", True),  # disk full
        ("55P03", True),  # a lock was not to be had
        ("57P01", True),  # shutdown
        ("57P03", True),  # starting up
        ("57014", True),  # a statement was cancelled
        ("25P03", True),  # idle in a transaction for too long
        ("58030", True),  # an I/O error
        (None, True),  # the connection broke, or there was none
        ("42601", False),  # wrong syntax
        ("42P01", False),  # no such table
        ("23505", False),  # unique violation
        ("23514", False),  # no partition for the day
        ("22021", False),  # U+0000 in a text
        ("25006", False),  # a reader that writes
        ("XX001", False),  # data corrupted
    ],
)
def test_postgresql_says_by_its_state_what_passes(state: str | None, passes: bool) -> None:
    error = Exception("said by the server")
    error.sqlstate = state  # type: ignore[attr-defined]
    assert outage.is_transient(OperationalError("SELECT", None, error)) is passes


def test_a_pool_without_a_free_connection_is_an_outage() -> None:
    assert outage.is_transient(PoolTimeoutError())


async def test_the_cause_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    away = OperationalError("SELECT", None, Exception("refused\n\tIs the server running?"))
    failures = iter([away])

    async def work() -> None:
        for failure in failures:
            raise failure

    async def pause(_: float) -> None:
        pass

    await Outage("the work", logging.getLogger("some.place"), pause).ride_out(work)
    assert "refused Is the server running?" in caplog.text


async def test_it_is_said_once_at_each_end_and_the_pauses_grow_to_a_bound(caplog: pytest.LogCaptureFixture) -> None:
    asked_s: list[float] = []
    failures = 8

    async def pause(seconds: float) -> None:
        asked_s.append(seconds)

    async def work() -> str:
        if len(asked_s) < failures:
            raise operational(sqlite3.SQLITE_BUSY)
        return "done"

    riding = Outage("the work", logging.getLogger("some.place"), pause)
    with caplog.at_level(logging.INFO, "some.place"):
        assert await riding.ride_out(work) == "done"
        assert await riding.ride_out(work) == "done"
    assert asked_s == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    said = ["the work waits for the database: away", "the work goes on: the database is back"]
    assert [record.message for record in caplog.records] == said


async def test_what_stays_wrong_is_raised() -> None:
    async def work() -> None:
        raise operational(sqlite3.SQLITE_ERROR)

    with pytest.raises(OperationalError):
        await Outage("the work", logging.getLogger("some.place")).ride_out(work)


SERVER = 'connection to server at "10.0.0.1", port 5432 failed: '
REFUSED = (
    'FATAL:  password authentication failed for user "tollgate"',
    'FATAL:  role "tollgate" does not exist',
    'FATAL:  role "tollgate" is not permitted to log in',
    "fe_sendauth: no password supplied",
    'FATAL:  no pg_hba.conf entry for host "10.0.0.2", user "tollgate", database "tollgate", no encryption',
)


def connecting(*told: str) -> OperationalError:
    return OperationalError("", None, Exception("\n".join(f"{SERVER}{one}" for one in told)))


@pytest.mark.parametrize("told", REFUSED)
def test_a_login_that_is_refused_stays_refused(told: str) -> None:
    assert outage.refuses_login(connecting(told))
    assert outage.refuses_login(connecting(told, REFUSED[0]))


@pytest.mark.parametrize(
    "told",
    [
        "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
        "FATAL:  the database system is starting up",
        "FATAL:  sorry, too many clients already",
        'FATAL:  database "tollgate" does not exist',
    ],
)
def test_a_server_that_is_away_or_not_there_yet_may_come(told: str) -> None:
    assert not outage.refuses_login(connecting(told))
    assert not outage.refuses_login(connecting(REFUSED[0], told)), "another server of the same URL"
    assert not outage.refuses_login(ValueError(REFUSED[0]))
