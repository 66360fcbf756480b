"""Who may do what: every operation of the served description, by keys that may not, and on what is another lab's."""

import httpx
import pytest
from litestar import Litestar

from runtime.database.engines import Database
from tests.integration.control import furnished, helpers
from tests.integration.control.furnished import Call
from tests.integration.control.helpers import Lab


@pytest.fixture
def app(database: Database) -> Litestar:
    return furnished.application(database)


@pytest.fixture
async def calls(lab: Lab, database: Database) -> list[Call]:
    """Every operation, on what is the lab's own."""
    document = (await lab.client.get("/schema/openapi.json")).json()
    return list(furnished.calls(document, await furnished.furnish(database, lab)))


def changed(database: Database) -> tuple[int, int]:
    """Return how many changes are noted, and how many the other processes are told of."""
    return len(helpers.audited(database)), len(helpers.changes(database))


async def answered(calls: list[Call], client: httpx.AsyncClient) -> dict[str, tuple[int, str | None]]:
    """Send each; return its status and what the error is called."""
    found = {}
    for call in calls:
        answer = await call.send(client)
        body = answer.json()
        found[call.id] = (answer.status_code, body.get("error", {}).get("code") if isinstance(body, dict) else None)
    return found


async def test_a_read_key_may_get_and_nothing_else(
    lab: Lab, app: Litestar, database: Database, calls: list[Call]
) -> None:
    key = helpers.add_read_key(database, lab.id)
    before = changed(database)
    async with helpers.client(app, key) as reader:
        found = await answered(calls, reader)
    refused = (403, "insufficient_scope")
    assert found == {call.id: (200, None) if call.method == "GET" else refused for call in calls}
    assert changed(database) == before


async def test_what_another_lab_has_is_forbidden(calls: list[Call], other: Lab, database: Database) -> None:
    named, before = [call for call in calls if "{" in call.template], changed(database)
    assert len(named) > 10
    assert await answered(named, other.client) == {call.id: (403, "other_workspace") for call in named}
    assert changed(database) == before


async def test_another_labs_lists_hold_nothing_of_it(calls: list[Call], other: Lab) -> None:
    for call in calls:
        if call.id.startswith("list_") and "{" not in call.template:
            assert (await call.send(other.client)).json()["items"] == [], call.id


async def test_without_a_credential_nothing_is_answered(app: Litestar, calls: list[Call], database: Database) -> None:
    before = changed(database)
    async with helpers.client(app) as nobody:
        assert await answered(calls, nobody) == {call.id: (401, "missing_api_key") for call in calls}
    assert changed(database) == before


async def test_a_developers_key_may_do_nothing(lab: Lab, app: Litestar, calls: list[Call], database: Database) -> None:
    (minting,) = (call for call in calls if call.id == "create_api_key")
    key = (await minting.send(lab.client)).json()["api_key"]
    before = changed(database)
    async with helpers.client(app, key) as developer:
        assert await answered(calls, developer) == {call.id: (403, "developer_key") for call in calls}
    assert changed(database) == before
