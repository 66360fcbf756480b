"""A database with one event in the ledger that may be corrected."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from metering import store
from runtime import database as databases
from runtime.database import Database
from tests.unit.metering.factories_metering import HandClock, batch, event
from tollgate import migrations

EVENT = event(1, tokens=(10, 5, 2))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    return made


@pytest.fixture
def database(data: Path) -> Iterator[Database]:
    with databases.sqlite(data / "tollgate.db") as opened:
        migrations.upgrade(opened)
        opened.write_now(lambda connection: store.apply(connection, batch([EVENT]), HandClock()))
        yield opened
