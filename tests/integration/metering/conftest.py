"""The database of both engines, under the name that these tests give it."""

import pytest

from runtime.database import Database


@pytest.fixture
def opened(database: Database) -> Database:
    return database
