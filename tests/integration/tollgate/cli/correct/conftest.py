"""A database with one event in the ledger that may be corrected."""

from pathlib import Path

import pytest

from metering.store import transaction
from runtime.database.engines import Database
from tests.support.engines import Place
from tests.unit.metering.factories import HandClock, batch, event

EVENT = event(1, tokens=(10, 5, 2))


@pytest.fixture
def data(place: Place) -> Path:
    """The data directory, for what is typed."""
    return place.folder


@pytest.fixture
def database(database: Database) -> Database:
    database.write_now(lambda connection: transaction.apply(connection, batch([EVENT]), HandClock()))
    return database
