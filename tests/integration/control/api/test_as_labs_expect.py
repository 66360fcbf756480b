"""What clients of hosted products send, and what their tools need to see (contract 2)."""

from typing import Any

import pytest

from runtime.database.engines import Database
from tests.integration.control.api.test_api_keys import register
from tests.integration.control.furnished import set_public_key
from tests.integration.control.helpers import Lab, day_limit

ENDPOINTS, GROUPS = "/v1/gateway/endpoints", "/v1/gateway/groups"
SLUG = "acme/m"


def model(*usage: dict[str, Any], rates: Any = ()) -> dict[str, Any]:
    return {"slug": SLUG, "rate_limits": rates, "usage_limits": usage}


def rate(threshold: int, unit: str, type_: str = "REQUEST") -> dict[str, Any]:
    return {"type": type_, "unit": unit, "threshold": threshold}


@pytest.mark.parametrize("key", ["register/123456.ABCDEFGHIJKLMNOPQRSTUVWX", "batch/12345678.ABCDEFGHIJKLMNOPQRSTUVWX",
                                 "register//rotate.ABCDEFGHIJKLMNOPQRSTUVWX"])  # fmt: skip
async def test_a_key_of_any_prefix_can_be_seen_and_revoked(lab: Lab, database: Database, key: str) -> None:
    set_public_key(database, lab.id)
    await lab.endpoint(SLUG)
    group = (await lab.made_group("cust", model()))["id"]
    assert (await register(lab, group, {"key": key})).status_code == 200
    path = f"{GROUPS}/{group}/api_keys/{key[:16].replace('/', '%2F')}"
    assert (await lab.client.get(path)).json()["prefix"] == key[:16]
    assert (await lab.client.delete(path)).json() == {"prefix": key[:16]}
    assert (await lab.client.get(path)).status_code == 404


async def test_a_key_whose_secret_half_can_be_guessed_is_refused(lab: Lab, database: Database) -> None:
    set_public_key(database, lab.id)
    await lab.endpoint(SLUG)
    group = (await lab.made_group("cust", model()))["id"]
    answer = await register(lab, group, {"key": "0123456789bcdefg" + "a" * 16})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "key", "key_too_weak")
    assert "first 16" in error["message"]


async def test_effective_models_that_are_no_longer_true_are_told_as_stale(lab: Lab) -> None:
    await lab.endpoint(SLUG)
    root = await lab.made_group("root", model(day_limit(10)))
    child = await lab.made_group("child", model(), parent_group_id=root["id"])
    await lab.client.patch(f"{GROUPS}/{root['id']}", json={"models": [model(day_limit(9))]})
    answer = await lab.client.patch(f"{GROUPS}/{child['id']}", json=child)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "effective_models", "stale")
    assert "no longer" in error["message"]
    assert "never changes" not in error["message"]


@pytest.mark.parametrize("above", ["child", "descendant"])
async def test_a_limit_above_an_ancestors_is_told_with_both(lab: Lab, above: str) -> None:
    await lab.endpoint(SLUG)
    root = await lab.made_group("root", model(day_limit(10)), limit_enforcement="CASCADING")
    if above == "child":
        answer = await lab.group("child", model(day_limit(11)), parent_group_id=root["id"])
        child, thresholds = None, ("11", "10")
    else:
        child = await lab.made_group("child", model(day_limit(9)), parent_group_id=root["id"])
        answer = await lab.client.patch(f"{GROUPS}/{root['id']}", json={"models": [model(day_limit(8))]})
        thresholds = ("9", "8")
    message = answer.json()["error"]["message"]
    assert answer.status_code == 400
    assert message.startswith("Child group exceeds parent group limit. ")
    for named in (SLUG, "TOKEN", "DAY", root["id"], *thresholds, *([child["id"]] if child else [])):
        assert named in message


@pytest.mark.parametrize(
    "body",
    [
        {"models": [{"slug": SLUG, "rate_limits": None, "usage_limits": None}]},
        {"models": [model()], "hierarchy": None},
        {"models": [model(day_limit(0), rates=[rate(0, "SECOND"), rate(0, "MINUTE", "TOKEN")])]},
        {"models": [model(rates=[rate(5, "SECOND"), rate(60, "MINUTE"), rate(7, "MINUTE", "TOKEN")])]},
    ],
)
async def test_what_the_published_schema_takes_is_taken(lab: Lab, body: dict[str, Any]) -> None:
    await lab.endpoint(SLUG)
    answer = await lab.client.post(GROUPS, json={**body, "metadata": {"external_entity_id": "cust"}})
    assert answer.status_code == 200, answer.text
    made = answer.json()
    given = body["models"][0]
    for name in ("rate_limits", "usage_limits"):
        assert made["models"][0][name] == list(given[name] or [])
    assert made["hierarchy"] == {"limit_enforcement": "INDEPENDENT", "parent_group_id": None}
    again = await lab.client.patch(f"{GROUPS}/{made['id']}", json={"models": body["models"], "hierarchy": None})
    assert again.status_code == 200, again.text


async def test_a_merge_patch_is_json(lab: Lab) -> None:
    await lab.endpoint(SLUG)
    made = await lab.made_group("cust", model())
    answer = await lab.client.patch(
        f"{GROUPS}/{made['id']}",
        content=b'{"metadata": {"name": "n"}}',
        headers={"content-type": "application/merge-patch+json"},
    )
    assert (answer.status_code, answer.json()["metadata"]["name"]) == (200, "n")


async def test_the_two_of_one_type_and_unit_stay_refused(lab: Lab) -> None:
    await lab.endpoint(SLUG)
    answer = await lab.group("cust", model(rates=[rate(5, "SECOND"), rate(6, "SECOND")]))
    assert "at most one rate limit per type and unit" in answer.json()["error"]["message"]


async def test_what_a_lost_answer_made_can_be_found(lab: Lab) -> None:
    endpoint = await lab.endpoint(SLUG)
    await lab.endpoint("acme/other")
    found = (await lab.client.get(ENDPOINTS, params={"slug": SLUG})).json()
    assert found == {"items": [endpoint], "pagination": {"has_more": False, "cursor": None}}
    assert (await lab.client.get(ENDPOINTS, params={"slug": "acme/none"})).json()["items"] == []
    made = await lab.made_group("cust", model())
    answer = await lab.group("cust", model())
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "external_entity_id_taken")
    assert made["id"] in error["message"]


async def test_a_list_with_more_says_so_in_a_header(lab: Lab) -> None:
    for name in ("a", "b", "c"):
        await lab.endpoint(f"acme/{name}")
    seen, path = [], f"{ENDPOINTS}?limit=2"
    while path:
        answer = await lab.client.get(path)
        seen += [item["slug"] for item in answer.json()["items"]]
        link = answer.headers.get("link")
        assert (link is not None) is answer.json()["pagination"]["has_more"]
        path = answer.links["next"]["url"] if link else ""
    assert seen == ["acme/a", "acme/b", "acme/c"]


@pytest.mark.parametrize("kind", ["endpoint", "group"])
async def test_of_eight_clients_that_read_and_change_none_is_lost_unnoticed(lab: Lab, kind: str) -> None:
    made = await lab.endpoint(SLUG)
    path = f"{ENDPOINTS}/{made['id']}"
    change: dict[str, Any] = {"slug": "acme/n"}
    if kind == "group":
        made = await lab.made_group("cust", model())
        path, change = f"{GROUPS}/{made['id']}", {"metadata": {"name": "n"}}
    read = await lab.client.get(path)
    tag = read.headers["etag"]
    assert tag.startswith('"')
    first = await lab.client.patch(path, json=change, headers={"if-match": tag})
    assert first.status_code == 200
    assert first.headers["etag"] not in {None, tag}
    assert first.json()["updated_at"] >= made["updated_at"]
    for method in ("PATCH", "DELETE"):
        late = await lab.client.request(
            method, path, json=change if method == "PATCH" else None, headers={"if-match": tag}
        )
        error = late.json()["error"]
        assert (late.status_code, error["code"]) == (412, "precondition_failed")
    ours = (await lab.client.get(path)).headers["etag"]
    assert ours == first.headers["etag"]
    for tags in (f'"x", {ours}', "*", f"W/{ours}"):
        answer = await lab.client.patch(path, json=change, headers={"if-match": tags})
        assert answer.status_code == (412 if tags.startswith("W/") else 200)
        ours = (await lab.client.get(path)).headers["etag"]
    assert (await lab.client.delete(path, headers={"if-match": ours})).status_code == 200


async def test_an_etag_is_over_the_own_record(lab: Lab) -> None:
    await lab.endpoint(SLUG)
    root = await lab.made_group("root", model(day_limit(10)))
    child = await lab.made_group("child", model(), parent_group_id=root["id"])
    before = (await lab.client.get(f"{GROUPS}/{child['id']}")).headers["etag"]
    await lab.client.patch(f"{GROUPS}/{root['id']}", json={"models": [model(day_limit(9))]})
    assert (await lab.client.get(f"{GROUPS}/{child['id']}")).headers["etag"] == before


async def test_an_updated_at_that_is_sent_back_is_ignored(lab: Lab) -> None:
    made = await lab.endpoint(SLUG)
    path = f"{ENDPOINTS}/{made['id']}"
    await lab.client.patch(path, json={"slug": "acme/n"})
    assert (await lab.client.patch(path, json=made)).status_code == 200
    group = await lab.made_group("cust", model())
    path = f"{GROUPS}/{group['id']}"
    await lab.client.patch(path, json={"metadata": {"name": "n"}})
    assert (await lab.client.patch(path, json=group)).status_code == 200
