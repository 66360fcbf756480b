"""A database with one event in the ledger that may be corrected."""

from pathlib import Path

import pytest

from metering import store
from runtime.database import Database
from tests.engines import Place
from tests.unit.metering.factories_metering import HandClock, batch, event

EVENT = event(1, tokens=(10, 5, 2))


@pytest.fixture
def data(place: Place) -> Path:
    """The data directory, for what is typed."""
    return place.folder


@pytest.fixture
def database(database: Database) -> Database:
    database.write_now(lambda connection: store.apply(connection, batch([EVENT]), HandClock()))
    return database
