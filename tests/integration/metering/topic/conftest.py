"""One installation with a single-partition usage topic, unless a test asks for more."""

from collections.abc import AsyncIterator

import pytest

from runtime.database.engines import Database
from runtime.kafka.writer import Kafka
from tests.integration.metering.topic.scene import Scene
from tests.support import records


@pytest.fixture
async def scene(request: pytest.FixtureRequest, kafka: Kafka, postgres: Database) -> AsyncIterator[Scene]:
    """Make it; `indirect` parametrization gives the number of partitions."""
    await records.make_topics(kafka, partitions=getattr(request, "param", 1))
    made = Scene(kafka, postgres)
    yield made
    await made.writer.close()
