"""What is ridden out, how long the pauses are, and what is said."""

import logging
import sqlite3

import pytest
from sqlalchemy.exc import OperationalError

from runtime import outage
from runtime.database import TransactionTooLongError
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
