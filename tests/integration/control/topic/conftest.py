import pytest

from runtime.database.engines import Database
from tests.integration.runtime.config.kit import Scene


@pytest.fixture
async def begun(database: Database) -> Scene:
    """A relay that has filled a topic and has nothing more to do."""
    made = Scene(database)
    await made.begin()
    await made.step(after_s=3)  # only then it knows the end of what it wrote
    made.topics.forget()
    return made
