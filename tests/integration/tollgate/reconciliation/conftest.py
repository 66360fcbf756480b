"""A desk of one's own for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runtime.database.engines import Database
from runtime.kafka.writer import Kafka
from runtime.settings import Settings
from tests.integration.tollgate.reconciliation import cluster_desk
from tests.integration.tollgate.reconciliation import desk as desks
from tollgate.installation import Installation


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[desks.Desk]:
    with desks.opened(tmp_path / "data") as made:
        yield made


@pytest.fixture
async def cluster(tmp_path: Path, kafka: Kafka, postgres: Database) -> AsyncIterator[cluster_desk.ClusterDesk]:
    place = Installation(tmp_path, "the test's database", Settings(), postgres, bytes(32))
    async with cluster_desk.opened(kafka, place) as made:
        yield made
