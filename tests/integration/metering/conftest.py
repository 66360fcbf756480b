"""A database of metering's tables in a file of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import metering.store  # noqa: F401  its tables register themselves
from runtime import database


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[database.Database]:
    with database.sqlite(tmp_path / "main.db") as made:
        database.METADATA.create_all(made.engine)
        yield made
