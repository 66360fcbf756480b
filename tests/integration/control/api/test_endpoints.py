from typing import Any

import pytest

from runtime.database.engines import Database
from schemas.config import ConfigKind
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab

PATH = "/v1/gateway/endpoints"
BASETEN = {"provider": "BASETEN", "model_id": "abc"}


async def test_an_endpoint_is_made_found_and_listed(lab: Lab, pokes: list[str]) -> None:
    made = await lab.endpoint("acme/small")
    assert made["slug"] == "acme/small"
    assert made["region"] == "UNRESTRICTED"
    assert made["targets"] == [
        {"provider": "OPENAI_COMPATIBLE", "base_url": "https://up.example/v1", "target_model": "m"}
    ]
    assert made["created_at"] == made["updated_at"]
    assert made["created_at"].endswith("Z")
    assert len(made["created_at"]) == len("2026-01-01T00:00:00.000Z")
    assert pokes == ["poke"]
    assert (await lab.client.get(f"{PATH}/{made['id']}")).json() == made
    page = (await lab.client.get(PATH)).json()
    assert page == {"items": [made], "pagination": {"has_more": False, "cursor": None}}


async def test_an_explicit_null_is_not_echoed_as_a_field(lab: Lab) -> None:
    made = await lab.endpoint("acme/small", secret_id=None)
    assert set(made["targets"][0]) == {"provider", "base_url", "target_model"}


async def test_a_new_endpoint_goes_to_the_log_of_changes(lab: Lab, database: Database) -> None:
    made = await lab.endpoint("acme/small")
    change = helpers.changes(database)[-1]
    assert (change.kind, change.id) == (ConfigKind.ENDPOINT, made["id"])
    assert change.record is not None
    assert change.record.model_dump(by_alias=False)["slug"] == "acme/small"


async def test_the_org_prefix_is_compared_case_folded(lab: Lab) -> None:
    assert (await lab.endpoint("aCMe/small"))["slug"] == "aCMe/small"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (helpers.endpoint_body("globex/m"), "slug"),
        (helpers.endpoint_body("nobody/m"), "slug"),
        (helpers.endpoint_body("acme"), "slug"),
        (helpers.endpoint_body("acme/m/m"), "slug"),
        (helpers.endpoint_body("acme/" + "m" * 251), "slug"),
        ({"slug": "acme/m", "targets": []}, "targets"),
        ({"slug": "acme/m", "targets": helpers.endpoint_body("acme/m")["targets"] * 2}, "targets"),
        ({"slug": "acme/m"}, "targets"),
        (helpers.endpoint_body("acme/m") | {"region": "MARS"}, "region"),
        (helpers.endpoint_body("acme/m") | {"colour": "red"}, "colour"),
        (helpers.endpoint_body("acme/m", provider="NOBODY"), "targets[0].provider"),
        (helpers.endpoint_body("acme/m", model_id="x"), "targets[0].model_id"),
        (helpers.endpoint_body("acme/m", base_url=None), "targets[0].base_url"),
        (helpers.endpoint_body("acme/m", target_model=None), "targets[0].target_model"),
        (helpers.endpoint_body("acme/m", target_model=" \t"), "targets[0].target_model"),
        ({"slug": "acme/m", "targets": [BASETEN | {"target_model": " "}]}, "targets[0].target_model"),
        (helpers.endpoint_body("acme/m", secret_id="s"), "targets[0].secret_id"),
        (helpers.endpoint_body("acme/m", base_url="http://up.example/v1"), "targets[0].base_url"),
        (helpers.endpoint_body("acme/m", base_url="https://127.0.0.1/v1"), "targets[0].base_url"),
    ],
)
async def test_a_wrong_body_is_refused_by_its_field(lab: Lab, other: Lab, body: dict[str, Any], param: str) -> None:
    answer = await lab.client.post(PATH, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["message"].startswith(param)


async def test_a_slug_is_unique(lab: Lab) -> None:
    await lab.endpoint("acme/small")
    answer = await lab.client.post(PATH, json=helpers.endpoint_body("acme/small"))
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "slug_taken"


async def test_private_upstreams_are_taken_where_the_operator_allows_them(lab: Lab, database: Database) -> None:
    app = helpers.application(database, allow_private_upstreams=True)
    async with helpers.client(app, lab.api_key) as client:
        answer = await client.post(PATH, json=helpers.endpoint_body("acme/m", base_url="http://127.0.0.1:9/v1/"))
    assert answer.status_code == 200
    assert answer.json()["targets"][0]["base_url"] == "http://127.0.0.1:9/v1/"  # as it was set


async def test_another_workspaces_endpoint_is_forbidden_and_an_unknown_one_not_found(lab: Lab, other: Lab) -> None:
    made = await lab.endpoint("acme/small")
    assert (await other.client.get(f"{PATH}/{made['id']}")).status_code == 403
    assert (await other.client.get(f"{PATH}/nothing")).status_code == 404
    assert (await other.client.get(PATH)).json()["items"] == []


async def test_pages_neither_skip_nor_repeat_while_others_insert(lab: Lab) -> None:
    made = [(await lab.endpoint(f"acme/m{number}"))["id"] for number in range(5)]
    seen: list[str] = []
    cursor = None
    for number in range(5, 9):
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await lab.client.get(PATH, params=query)).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["pagination"]["cursor"]
        await lab.endpoint(f"acme/m{number}")
    assert len(seen) == len(set(seen))
    assert set(made) <= set(seen)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=" + "9" * 5000, "cursor=x", "cursor=%C3%A4"]
)
async def test_a_wrong_page_query_is_refused(lab: Lab, query: str) -> None:
    answer = await lab.client.get(f"{PATH}?{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == query.partition("=")[0]
