"""Lengths, pages and what a new slug leaves alone, as the specification counts them (contract 2, 2.1, 2.2)."""

from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from metering.store import transaction
from metering.store.events import USAGE_EVENT
from runtime import clock
from runtime.database.engines import Database
from tests.integration.control.helpers import Lab, day_limit
from tests.support import engines
from tests.unit.metering import factories

ENDPOINTS, GROUPS = "/v1/gateway/endpoints", "/v1/gateway/groups"
SMALL = {"slug": "acme/small"}


@pytest.fixture(autouse=True)
async def endpoint(lab: Lab) -> dict[str, Any]:
    return await lab.endpoint("acme/small")


async def pages(lab: Lab, path: str, **query: Any) -> list[list[Mapping[str, Any]]]:
    """Return the items of each page, to the last."""
    found, cursor = [], ""
    while cursor is not None:
        answer = await lab.client.get(path, params=query | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        found.append(answer.json()["items"])
        cursor = answer.json()["pagination"]["cursor"]
        assert answer.json()["pagination"]["has_more"] is (cursor is not None)
    return found


async def test_a_page_has_100_items_where_nothing_is_said(lab: Lab) -> None:
    for number in range(101):
        await lab.secret(f"s-{number}", "v")
    assert [len(page) for page in await pages(lab, "/v1/secrets")] == [100, 1]


async def test_pages_of_keys_neither_skip_nor_repeat(lab: Lab) -> None:
    group, sibling = await lab.made_group("one", SMALL), await lab.made_group("two", SMALL)
    made = [(await lab.key(group["id"]))[:16] for _ in range(5)]
    await lab.key(sibling["id"])
    found = await pages(lab, f"{GROUPS}/{group['id']}/api_keys", limit=2)
    assert [len(page) for page in found] == [2, 2, 1]
    assert sorted(key["prefix"] for page in found for key in page) == sorted(made)


async def test_a_filter_holds_behind_a_cursor(lab: Lab) -> None:
    made = [await lab.made_group(f"g-{number}", SMALL) for number in range(3)]
    first = (await lab.client.get(GROUPS, params={"limit": 1})).json()
    cursor = first["pagination"]["cursor"]
    (earliest,) = first["items"]
    for group in made:
        query = {"cursor": cursor, "external_entity_id": group["metadata"]["external_entity_id"]}
        page = (await lab.client.get(GROUPS, params=query)).json()
        assert page["items"] == ([] if group["id"] == earliest["id"] else [group])
        assert page["pagination"] == {"has_more": False, "cursor": None}


@pytest.mark.parametrize("type_", ["TOKEN", "REQUEST"])
async def test_a_model_has_one_rate_limit_of_a_type_and_unit(lab: Lab, type_: str) -> None:
    second, minute = ({"type": type_, "unit": unit, "threshold": 5} for unit in ("SECOND", "MINUTE"))
    answer = await lab.group("two", SMALL | {"rate_limits": [second, minute, second | {"threshold": 6}]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "models[0]")
    assert "at most one rate limit per type and unit" in answer.json()["error"]["message"]
    other = {"type": "REQUEST" if type_ == "TOKEN" else "TOKEN", "unit": "SECOND", "threshold": 5}
    fine = await lab.made_group("one", SMALL | {"rate_limits": [second, minute, other]})
    assert fine["models"][0]["rate_limits"] == [second, minute, other]


async def sent(lab: Lab, field: str, text: str) -> httpx.Response:
    """Send `text` where `field` says."""
    group = (await lab.made_group("cust", SMALL))["id"]
    metadata = {"external_entity_id": "c"}
    match field:
        case "external_entity_id" | "name":
            return await lab.client.post(GROUPS, json={"metadata": metadata | {field: text}, "models": [SMALL]})
        case "new name":
            return await lab.client.patch(f"{GROUPS}/{group}", json={"metadata": {"name": text}})
        case "key's name":
            return await lab.client.post(f"{GROUPS}/{group}/api_keys", json={"name": text})
        case _:
            return await lab.client.post("/v1/secrets", json={"name": text, "value": "v"})


@pytest.mark.parametrize("letter", ["x", "é", "😀"])
@pytest.mark.parametrize("field", ["external_entity_id", "name", "new name", "key's name", "secret's name"])
async def test_names_hold_255_characters(lab: Lab, field: str, letter: str) -> None:
    longest = await sent(lab, field, letter * 255)
    assert longest.status_code == 200, longest.text
    assert letter * 255 in longest.text


@pytest.mark.parametrize("field", ["external_entity_id", "name", "new name", "key's name", "secret's name"])
async def test_names_of_256_characters_are_refused(lab: Lab, field: str) -> None:
    answer = await sent(lab, field, "x" * 256)
    assert answer.status_code == 400
    assert "255" in answer.json()["error"]["message"]


async def test_a_new_slug_leaves_groups_counters_and_events_alone(
    lab: Lab, database: Database, endpoint: dict[str, Any]
) -> None:
    limited = SMALL | {"rate_limits": [], "usage_limits": [day_limit(10, "REQUEST")]}
    group = await lab.made_group("cust", limited)
    path = f"{GROUPS}/{group['id']}"
    count(database, lab.id, group["id"], 1)
    renamed = await lab.client.patch(f"{ENDPOINTS}/{endpoint['id']}", json={"slug": "acme/renamed"})
    assert renamed.json()["slug"] == "acme/renamed"
    assert (await lab.client.get(path)).json() == group
    count(database, lab.id, group["id"], 2)  # admitted before the change, counted after it
    usage = (await lab.client.get(f"{path}/usage")).json()["usage"]
    assert {slug: [limit["current_usage"] for limit in limits] for slug, limits in usage.items()} == {"acme/small": [2]}
    slugs = database.read_now(lambda connection: connection.execute(USAGE_EVENT.select()).all())
    assert [row.model_slug for row in slugs] == ["acme/small"] * 2
    kept = await lab.client.patch(path, json={"models": [limited, {"slug": "acme/renamed"}]})
    assert kept.status_code == 200, kept.text  # a slug that is not new to the group needs no endpoint
    assert (await lab.group("new", SMALL)).status_code == 400


def count(database: Database, workspace_id: str, group_id: str, sequence: int) -> None:
    now = clock.steady()()
    counted = factories.event(
        sequence, timestamp=now, workspace_id=workspace_id, group_id=group_id, model_slug="acme/small"
    )
    engines.open_day(database, now.date())
    stretch = factories.batch([counted], sequence)
    database.write_now(lambda connection: transaction.apply(connection, stretch, clock.steady()))
