"""Both engines for every test of SQL: a database that can be opened several times, as several processes do."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import OperationalError

from domain import ledger_days
from domain.ledger_days import Days
from metering.store import day_partitions
from runtime.database import engines as databases
from runtime.database.engines import Database
from tollgate import migrations

ENGINES = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Place:
    """A migrated database, whose ledger has the days around NOON."""

    engine: str
    folder: Path
    """A folder of the test's own, where SQLite's file lies."""
    open: Callable[[], AbstractContextManager[Database]]


def made(engine: str, request: pytest.FixtureRequest, folder: Path) -> Place:
    """Make a place of `engine`, for fixtures with parameters of their own."""
    if engine == "sqlite":
        file = folder / "tollgate.db"
        shutil.copyfile(request.getfixturevalue("sqlite_migrated"), file)
        return Place(engine, folder, partial(databases.sqlite, file))
    return Place(engine, folder, partial(databases.postgres, request.getfixturevalue("postgres_with_days_url")))


@pytest.fixture(scope="session")
def sqlite_migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file, to be copied."""
    file = tmp_path_factory.mktemp("migrated") / "tollgate.db"
    with databases.sqlite(file) as opened:
        migrations.upgrade(opened)
    return file


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place of each engine in turn."""
    return made(request.param, request, tmp_path)


@pytest.fixture
def database(place: Place) -> Iterator[Database]:
    """The place, opened."""
    with place.open() as opened:
        yield opened


def open_day(opened: Database, day: date) -> None:
    """Give the ledger this day, if it has none so late: those between NOON and today would be hundreds."""

    def work(connection: Connection) -> None:
        if day_partitions.open_days(connection).last < day:
            day_partitions.ensure(connection, day)

    with pytest.MonkeyPatch.context() as this:
        this.setattr(ledger_days, "missing", lambda *_: Days(day, day))
        opened.write_now(work)


@contextmanager
def away(opened: Database, failures: int) -> Iterator[Callable[[], int]]:
    """Let the next statements fail as if the database were away; return how many of the `failures` are left."""
    left = failures

    def fail(*_: object) -> None:
        nonlocal left
        if left:
            left -= 1
            raise OperationalError("SELECT", None, Exception("away"))

    for engine in opened.engines:
        event.listen(engine, "do_execute", fail)
    try:
        yield lambda: left
    finally:
        for engine in opened.engines:
            event.remove(engine, "do_execute", fail)
