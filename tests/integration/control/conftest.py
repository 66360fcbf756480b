from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from litestar import Litestar

from runtime.database.engines import Database
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab

_HTTP = {Path(__file__).with_name("api"), Path(__file__).with_name("console")}
_ON_BOTH = {
    "test_changes_at_once.py",
    "test_deliveries.py",
    "test_drill.py",
    "test_events.py",
    "test_repeats.py",
    "test_usage.py",
}
"""What the engine has a part in: locks and races, the order of pages, sums."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the second engine of most tests of HTTP to `./run test-more`: their SQL has contract tests on both."""
    for item in items:
        call = getattr(item, "callspec", None)
        is_second = call is not None and call.params.get("place") == "postgresql"
        if is_second and item.path.parent in _HTTP and item.path.name not in _ON_BOTH:
            item.add_marker(pytest.mark.long)


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
