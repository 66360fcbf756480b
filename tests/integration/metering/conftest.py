"""The database of both engines, under the name that these tests give it."""

import pytest

from runtime.database.engines import Database


@pytest.fixture
def opened(database: Database) -> Database:
    return database
