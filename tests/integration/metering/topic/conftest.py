"""One installation with a single-partition usage topic, unless a test asks for more."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest

from domain import ledger_days
from runtime.database.engines import Database
from runtime.kafka.writer import Kafka
from tests.integration.metering.topic.scene import Scene
from tests.support import records
from tests.support.databases import Lender


@pytest.fixture
def postgres_migrated_url(postgres_lender: Lender) -> Iterator[str]:
    """A migrated database whose ledger has the days that a worker would make first of all."""
    with postgres_lender.lent(datetime.now(UTC).date(), ledger_days.LATE_DAYS) as url:
        yield url


@pytest.fixture
async def scene(request: pytest.FixtureRequest, kafka: Kafka, postgres: Database) -> AsyncIterator[Scene]:
    """Make it; `indirect` parametrization gives the number of partitions."""
    await records.make_topics(kafka, partitions=getattr(request, "param", 1))
    made = Scene(kafka, postgres)
    yield made
    await made.writer.close()
