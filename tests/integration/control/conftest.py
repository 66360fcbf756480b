from collections.abc import AsyncIterator

import pytest
from litestar import Litestar

from runtime.database.engines import Database
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab


@pytest.fixture
def pokes() -> list[str]:
    return []


@pytest.fixture
def app(database: Database, pokes: list[str]) -> Litestar:
    async def in_force() -> None:
        pokes.append("poke")

    return helpers.application(database, in_force)


@pytest.fixture
async def lab(database: Database, app: Litestar) -> AsyncIterator[Lab]:
    onboarded = helpers.onboard(database, "lab", "Acme")
    async with helpers.client(app, onboarded.api_key) as client:
        yield Lab(onboarded.workspace_id, onboarded.api_key, client)


@pytest.fixture
async def other(database: Database, app: Litestar) -> AsyncIterator[Lab]:
    onboarded = helpers.onboard(database, "other", "globex")
    async with helpers.client(app, onboarded.api_key) as client:
        yield Lab(onboarded.workspace_id, onboarded.api_key, client)
