from typing import Any

import pytest

from control.flow.groups import ABOVE_PARENT
from runtime.database.engines import Database
from schemas.config import ConfigKind, GroupRecord
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab, day_limit

PATH = "/v1/gateway/groups"
TRUE_LIMIT = day_limit(1) | {"threshold": True}
SMALL = {"slug": "acme/small"}
RATE = {"type": "TOKEN", "unit": "MINUTE", "threshold": 5}


def limited(threshold: int, slug: str = "acme/small") -> dict[str, Any]:
    return {"slug": slug, "usage_limits": [day_limit(threshold)]}


@pytest.fixture(autouse=True)
async def endpoint(lab: Lab) -> None:
    await lab.endpoint("acme/small")
    await lab.endpoint("acme/large")


async def test_a_root_is_made_found_and_listed(lab: Lab) -> None:
    made = await lab.made_group("cust_1", limited(10))
    own = {"slug": "acme/small", "rate_limits": [], "usage_limits": [day_limit(10)]}
    assert made["models"] == [own]
    assert made["effective_models"] == [own | {"usage_limits": [day_limit(10) | {"source_group": made["id"]}]}]
    assert made["hierarchy"] == {"limit_enforcement": "INDEPENDENT", "parent_group_id": None}
    assert made["metadata"] == {"name": None, "external_entity_id": "cust_1"}
    assert (await lab.client.get(f"{PATH}/{made['id']}")).json() == made
    assert (await lab.client.get(PATH)).json()["items"] == [made]


async def test_hierarchy_may_be_left_out(lab: Lab) -> None:
    body = {"metadata": {"external_entity_id": "c", "name": "C"}, "models": [SMALL]}
    answer = await lab.client.post(PATH, json=body)
    assert answer.status_code == 200
    assert answer.json()["metadata"]["name"] == "C"


async def test_a_child_shows_what_it_inherits_and_travels_with_its_way_up(lab: Lab, database: Database) -> None:
    root = await lab.made_group("root", limited(10), {"slug": "acme/large"})
    child = await lab.made_group("child", limited(20), parent_group_id=root["id"])
    effective = {model["slug"]: model["usage_limits"] for model in child["effective_models"]}
    assert effective == {"acme/small": [day_limit(20) | {"source_group": child["id"]}], "acme/large": []}
    change = helpers.changes(database)[-1]
    assert change.kind is ConfigKind.GROUP
    assert isinstance(change.record, GroupRecord)
    assert change.record.ancestor_ids == (root["id"],)


async def test_the_list_filters_by_external_id(lab: Lab) -> None:
    await lab.made_group("one", SMALL)
    two = await lab.made_group("two", SMALL)
    assert (await lab.client.get(PATH, params={"external_entity_id": "two"})).json()["items"] == [two]
    assert (await lab.client.get(PATH, params={"external_entity_id": "three"})).json()["items"] == []


async def test_a_page_of_groups_carries_each_groups_way_up(lab: Lab) -> None:
    root = await lab.made_group("root", limited(10), limit_enforcement="CASCADING")
    child = await lab.made_group("child", SMALL, parent_group_id=root["id"])
    pages = []
    cursor: str | None = ""
    while cursor is not None:
        query = {"limit": "1"} | ({"cursor": cursor} if cursor else {})
        page = (await lab.client.get(PATH, params=query)).json()
        pages += page["items"]
        cursor = page["pagination"]["cursor"]
    assert sorted(pages, key=lambda group: group["id"]) == sorted([root, child], key=lambda group: group["id"])


async def test_an_external_id_is_unique_in_its_workspace_alone(lab: Lab, other: Lab) -> None:
    await other.endpoint("globex/m")
    await lab.made_group("cust", SMALL)
    assert (await lab.group("cust", SMALL)).json()["error"]["param"] == "metadata.external_entity_id"
    await other.made_group("cust", {"slug": "globex/m"})


async def test_a_slug_of_another_workspace_is_refused(lab: Lab, other: Lab) -> None:
    await other.endpoint("globex/m")
    answer = await lab.group("cust", SMALL, {"slug": "globex/m"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "models[1].slug"


async def test_parents_must_be_the_workspaces_own(lab: Lab, other: Lab) -> None:
    await other.endpoint("globex/m")
    root = await lab.made_group("root", SMALL)
    assert (await other.group("c", {"slug": "globex/m"}, parent_group_id=root["id"])).status_code == 404
    assert (await lab.group("c", SMALL, parent_group_id="nothing")).status_code == 404
    assert (await other.client.get(f"{PATH}/{root['id']}")).status_code == 403


async def test_a_tree_has_five_levels(lab: Lab) -> None:
    parent = None
    for level in range(5):
        parent = (await lab.made_group(f"level-{level}", SMALL, parent_group_id=parent))["id"]
    answer = await lab.group("level-5", SMALL, parent_group_id=parent)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "hierarchy.parent_group_id"


async def test_a_child_has_its_parents_mode(lab: Lab) -> None:
    root = await lab.made_group("root", SMALL, limit_enforcement="CASCADING")
    child = await lab.made_group("child", SMALL, parent_group_id=root["id"])
    assert child["hierarchy"] == {"limit_enforcement": "CASCADING", "parent_group_id": root["id"]}
    answer = await lab.group("odd", SMALL, parent_group_id=root["id"], limit_enforcement="INDEPENDENT")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "hierarchy.limit_enforcement"


async def test_cascading_limits_hold_in_both_directions(lab: Lab) -> None:
    root = await lab.made_group("root", limited(10), limit_enforcement="CASCADING")
    middle = await lab.made_group("middle", SMALL, parent_group_id=root["id"])
    above = await lab.group("above", limited(11), parent_group_id=middle["id"])
    assert above.status_code == 400
    assert above.json()["error"]["message"].startswith(ABOVE_PARENT)
    leaf = await lab.made_group("leaf", limited(10), parent_group_id=middle["id"])
    lowered = await lab.client.patch(f"{PATH}/{root['id']}", json={"models": [limited(9)]})
    assert lowered.status_code == 400
    assert lowered.json()["error"]["message"].startswith(ABOVE_PARENT)
    raised = await lab.client.patch(f"{PATH}/{leaf['id']}", json={"models": [limited(11)]})
    assert raised.status_code == 400
    fine = await lab.client.patch(f"{PATH}/{leaf['id']}", json={"models": [limited(9)]})
    assert fine.status_code == 200
    assert (await lab.client.patch(f"{PATH}/{root['id']}", json={"models": [limited(9)]})).status_code == 200


async def test_independent_limits_may_exceed_their_parents(lab: Lab) -> None:
    root = await lab.made_group("root", limited(10))
    child = await lab.made_group("child", limited(11), parent_group_id=root["id"])
    assert (await lab.client.patch(f"{PATH}/{root['id']}", json={"models": [limited(1)]})).status_code == 200
    shown = (await lab.client.get(f"{PATH}/{child['id']}")).json()
    assert shown["effective_models"][0]["usage_limits"][0]["threshold"] == 11


async def test_patch_replaces_the_whole_set_or_the_name(lab: Lab, database: Database, pokes: list[str]) -> None:
    made = await lab.made_group("cust", limited(10), {"slug": "acme/large"})
    path = f"{PATH}/{made['id']}"
    renamed = (await lab.client.patch(path, json={"metadata": {"name": "Acme"}})).json()
    metadata = {"name": "Acme", "external_entity_id": "cust"}
    assert renamed == made | {"metadata": metadata, "updated_at": renamed["updated_at"]}
    pokes.clear()
    replaced = (await lab.client.patch(path, json={"models": [limited(5)]})).json()
    assert [model["slug"] for model in replaced["models"]] == ["acme/small"]
    assert replaced["metadata"]["name"] == "Acme"
    assert pokes == ["poke"]
    record = helpers.changes(database)[-1].record
    assert isinstance(record, GroupRecord)
    assert record.models[0].usage_limits[0].threshold == 5
    cleared = (await lab.client.patch(path, json={"models": [], "metadata": {"name": None}})).json()
    assert (cleared["models"], cleared["metadata"]["name"]) == ([], None)
    assert (await lab.client.get(path)).json() == cleared


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"metadata": {}}, None),
        ({"metadata": {"external_entity_id": "x"}}, "metadata.external_entity_id"),
        ({"metadata": {"name": "x" * 256}}, "metadata.name"),
        ({"models": [SMALL, SMALL]}, "models"),
        ({"models": [{"slug": "acme/new"}]}, "models[0].slug"),
        ({"hierarchy": {}}, None),
        ({"hierarchy": {"limit_enforcement": "CASCADING"}}, "hierarchy.limit_enforcement"),
        ({"colour": "red"}, "colour"),
        (
            {"models": [SMALL | {"rate_limits": [{"type": "TOKEN", "unit": "DAY", "threshold": 1}]}]},
            "models[0].rate_limits[0].unit",
        ),
        ({"models": [SMALL | {"usage_limits": [day_limit(-1)]}]}, "models[0].usage_limits[0].threshold"),
        (
            {"models": [SMALL | {"usage_limits": [day_limit(1) | {"threshold": True}]}]},
            "models[0].usage_limits[0].threshold",
        ),
        ({"models": [SMALL | {"usage_limits": [day_limit(1), day_limit(2)]}]}, "models[0]"),
        ({"models": [SMALL | {"rate_limits": [RATE, RATE | {"threshold": 6}]}]}, "models[0]"),
    ],
)
async def test_a_wrong_patch_changes_nothing(lab: Lab, body: dict[str, Any], param: str | None) -> None:
    made = await lab.made_group("cust", SMALL)
    answer = await lab.client.patch(f"{PATH}/{made['id']}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert (await lab.client.get(f"{PATH}/{made['id']}")).json() == made


async def test_keys_are_minted_once_and_listed_without_their_secret(lab: Lab, database: Database) -> None:
    group = await lab.made_group("cust", SMALL)
    path = f"{PATH}/{group['id']}/api_keys"
    minted = (await lab.client.post(path, json={"name": "prod"})).json()
    assert minted["api_key"].startswith(minted["prefix"] + ".")
    assert minted["prefix"].startswith("sky_")
    assert len(minted["prefix"]) == 16
    created_at = (await lab.client.get(f"{path}/{minted['prefix']}")).json()["created_at"]
    shown = {"prefix": minted["prefix"], "name": "prod", "created_at": created_at}
    assert (await lab.client.get(path)).json()["items"] == [shown]
    assert (await lab.client.get(f"{path}/{minted['prefix']}")).json() == shown
    assert (await lab.client.get(f"{path}/nothing")).status_code == 404
    assert minted["api_key"].split(".")[1] not in str(helpers.changes(database))


async def test_keys_hide_behind_their_own_group_and_workspace(lab: Lab, other: Lab) -> None:
    group, sibling = await lab.made_group("one", SMALL), await lab.made_group("two", SMALL)
    minted = (await lab.client.post(f"{PATH}/{group['id']}/api_keys", json={})).json()
    assert (await lab.client.get(f"{PATH}/{sibling['id']}/api_keys/{minted['prefix']}")).status_code == 404
    assert (await other.client.get(f"{PATH}/{group['id']}/api_keys/{minted['prefix']}")).status_code == 403
    assert (await other.client.get(f"{PATH}/{group['id']}/api_keys")).status_code == 403
    assert (await other.client.post(f"{PATH}/{group['id']}/api_keys", json={})).status_code == 403
    assert (await lab.client.post(f"{PATH}/nothing/api_keys", json={})).status_code == 404


async def test_a_list_of_large_groups_comes_in_pages_bounded_by_bytes_each_group_once(lab: Lab) -> None:
    """60 groups of 1,000 models in one answer took 21 s, 1.2 GB, and everybody else's calls."""
    slugs = [f"acme/{number:02}" + "m" * 240 for number in range(20)]
    for slug in slugs:
        await lab.endpoint(slug)
    rates = [{"type": type_, "unit": "MINUTE", "threshold": 2**53} for type_ in ("TOKEN", "REQUEST")]
    ids = [
        (await lab.made_group(f"customer-{number}", *({"slug": slug, "rate_limits": rates} for slug in slugs)))["id"]
        for number in range(60)
    ]
    seen: list[str] = []
    sizes: list[int] = []
    url = "/v1/gateway/groups?limit=1000"
    while url:
        answer = await lab.client.get(url)
        sizes.append(len(answer.content))
        seen += [group["id"] for group in answer.json()["items"]]
        url = answer.links["next"]["url"] if answer.json()["pagination"]["has_more"] else ""
    assert seen == ids
    assert len(sizes) == 2
    assert max(sizes) < 1_100_000
