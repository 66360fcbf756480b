"""A desk of one's own for each test."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from domain import ledger_days
from runtime.database.engines import Database
from runtime.kafka.writer import Kafka
from runtime.settings import Settings
from tests.integration.tollgate.reconciliation import cluster_desk
from tests.integration.tollgate.reconciliation import desk as desks
from tests.support.databases import Lender
from tollgate.installation import Installation


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[desks.Desk]:
    with desks.opened(tmp_path / "data") as made:
        yield made


@pytest.fixture
def postgres_migrated_url(postgres_lender: Lender) -> Iterator[str]:
    """A migrated database whose ledger has the days around the desk's."""
    with postgres_lender.lent(cluster_desk.TODAY, ledger_days.LATE_DAYS) as url:
        yield url


@pytest.fixture
async def cluster(tmp_path: Path, kafka: Kafka, postgres: Database) -> AsyncIterator[cluster_desk.ClusterDesk]:
    place = Installation(tmp_path, "the test's database", Settings(), postgres, bytes(32))
    async with cluster_desk.opened(kafka, place) as made:
        yield made
