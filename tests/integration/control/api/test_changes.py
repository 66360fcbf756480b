"""What is changed and deleted through the API, and the audit log of it (contract 2.1, 2.2, 6)."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from metering.store import transaction
from runtime import clock
from runtime.database.engines import Database
from schemas.config import ConfigKind, EndpointRecord
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab, day_limit
from tests.support import engines
from tests.unit.metering import factories

ENDPOINTS = "/v1/gateway/endpoints"
GROUPS = "/v1/gateway/groups"
SMALL = {"slug": "acme/small"}


async def test_an_endpoints_slug_and_target_change(lab: Lab, database: Database, pokes: list[str]) -> None:
    made = await lab.endpoint("acme/old")
    path = f"{ENDPOINTS}/{made['id']}"
    pokes.clear()
    target = {"provider": "BASETEN", "model_id": "abc123", "environment_name": "staging"}
    changed = (await lab.client.patch(path, json={"slug": "acme/new", "targets": [target]})).json()
    assert changed == made | {"slug": "acme/new", "targets": [target], "updated_at": changed["updated_at"]}
    assert changed["updated_at"] >= made["updated_at"]
    assert (await lab.client.get(path)).json() == changed
    assert pokes == ["poke"]
    record = helpers.changes(database)[-1].record
    assert isinstance(record, EndpointRecord)
    assert (record.slug, record.target.model_id) == ("acme/new", "abc123")
    await lab.endpoint("acme/old")
    renamed = (await lab.client.patch(path, json={"slug": "acme/newer", "targets": None})).json()
    assert (renamed["slug"], renamed["targets"]) == ("acme/newer", [target])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"slug": None}, None),
        ({"slug": "acme/taken"}, "slug"),
        ({"slug": "globex/m"}, "slug"),
        ({"slug": "acme"}, "slug"),
        ({"targets": []}, "targets"),
        ({"targets": [{"provider": "OPENAI", "target_model": "m"}]}, "targets[0].secret_id"),
        ({"region": "EU"}, "region"),
    ],
)
async def test_a_wrong_change_of_an_endpoint_changes_nothing(
    lab: Lab, other: Lab, body: dict[str, Any], param: str | None
) -> None:
    await lab.endpoint("acme/taken")
    made = await lab.endpoint("acme/m")
    answer = await lab.client.patch(f"{ENDPOINTS}/{made['id']}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert (await lab.client.get(f"{ENDPOINTS}/{made['id']}")).json() == made


async def test_a_deleted_endpoint_leaves_a_tombstone_and_its_slug(lab: Lab, other: Lab, database: Database) -> None:
    made = await lab.endpoint("acme/small")
    await lab.made_group("cust", SMALL)
    path = f"{ENDPOINTS}/{made['id']}"
    assert (await other.client.delete(path)).status_code == 403
    assert (await other.client.patch(path, json={"slug": "globex/m"})).status_code == 403
    assert (await lab.client.delete(path)).json() == {"id": made["id"], "slug": "acme/small"}
    change = helpers.changes(database)[-1]
    assert (change.kind, change.id, change.record) == (ConfigKind.ENDPOINT, made["id"], None)
    for answer in (await lab.client.get(path), await lab.client.delete(path), await other.client.delete(path)):
        assert answer.status_code == 404
    assert (await lab.endpoint("acme/small"))["id"] != made["id"]


@pytest.mark.parametrize(
    "target",
    [
        {"provider": "BASETEN", "model_id": "abc"},
        {"provider": "BASETEN_MODEL_API", "target_model": "m"},
        {"provider": "OPENAI", "target_model": "m", "secret_id": "{secret}"},
        {"provider": "ANTHROPIC", "target_model": "m", "secret_id": "{secret}"},
        {
            "provider": "VERTEX",
            "target_model": "m",
            "secret_id": "{secret}",
            "vertex_config": {"project_id": "p-1", "location": "us-east5"},
        },
    ],
)
async def test_a_target_of_each_provider_is_echoed_as_it_was_set(lab: Lab, target: dict[str, Any]) -> None:
    if "secret_id" in target:
        target = target | {"secret_id": await lab.secret("upstream", "sk")}
    answer = await lab.client.post(ENDPOINTS, json={"slug": "acme/m", "targets": [target], "region": "EU"})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["targets"], answer.json()["region"]) == ([target], "EU")


async def test_a_deleted_group_takes_all_below_it_along(lab: Lab, database: Database) -> None:
    await lab.endpoint("acme/small")
    root = await lab.made_group("root", SMALL)
    middle = await lab.made_group("middle", SMALL, parent_group_id=root["id"])
    leaf = await lab.made_group("leaf", SMALL, parent_group_id=middle["id"])
    keys = {group["id"]: (await lab.key(group["id"]))[:16] for group in (root, middle, leaf)}
    before = len(helpers.changes(database))
    gone = (await lab.client.delete(f"{GROUPS}/{middle['id']}")).json()
    assert gone == {"id": middle["id"], "metadata": middle["metadata"], "deleted_at": gone["deleted_at"]}
    (change,) = helpers.changes(database)[before:]
    assert (change.kind, change.id, change.record) == (ConfigKind.GROUP, middle["id"], None)
    for group in (middle, leaf):
        for path in ("", "/usage", "/api_keys", f"/api_keys/{keys[group['id']]}"):
            assert (await lab.client.get(f"{GROUPS}/{group['id']}{path}")).status_code == 404
    assert [item["id"] for item in (await lab.client.get(GROUPS)).json()["items"]] == [root["id"]]
    assert (await lab.client.get(f"{GROUPS}/{root['id']}/api_keys/{keys[root['id']]}")).status_code == 200
    assert (await lab.group("c", SMALL, parent_group_id=leaf["id"])).status_code == 404
    for name in ("middle", "leaf"):
        await lab.made_group(name, SMALL, parent_group_id=root["id"])


async def test_a_group_of_another_workspace_cannot_be_deleted(lab: Lab, other: Lab) -> None:
    await lab.endpoint("acme/small")
    made = await lab.made_group("cust", SMALL)
    assert (await other.client.delete(f"{GROUPS}/{made['id']}")).status_code == 403
    assert (await other.client.get(f"{GROUPS}/{made['id']}/usage")).status_code == 403
    assert (await lab.client.get(f"{GROUPS}/{made['id']}")).status_code == 200
    assert (await lab.client.delete(f"{GROUPS}/nothing")).status_code == 404


def count(
    database: Database, *charged: str, slug: str = "acme/small", number: int = 1, at: datetime | None = None
) -> None:
    """Let metering count one event, by default of today, the lane's `number`th."""
    now = clock.steady()() if at is None else at
    counted = factories.event(
        number,
        timestamp=now,
        group_id=charged[0],
        charged_groups=charged,
        model_slug=slug,
        tokens=(5, 4, 0),
    )
    batch = factories.batch([counted], number)
    engines.open_day(database, now.date())
    database.write_now(lambda connection: transaction.apply(connection, batch, clock.steady()))


async def usage(lab: Lab, group: dict[str, Any]) -> dict[str, Any]:
    answer = await lab.client.get(f"{GROUPS}/{group['id']}/usage")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_usage_is_null_until_the_first_request_of_the_day(lab: Lab, database: Database) -> None:
    await lab.endpoint("acme/small")
    await lab.endpoint("acme/free")
    limits = {"usage_limits": [day_limit(100), day_limit(7, "REQUEST")]}
    made = await lab.made_group("cust", SMALL | limits, {"slug": "acme/free"})
    shown = [limit | {"current_usage": None, "reset_at": None, "source_group": made["id"]}
             for limit in limits["usage_limits"]]  # fmt: skip
    assert await usage(lab, made) == {"customer_id": "cust", "usage": {"acme/small": shown}}
    count(database, made["id"])
    tomorrow = (clock.steady()() + timedelta(days=1)).strftime("%Y-%m-%dT00:00:00.000Z")
    tokens, requests = (await usage(lab, made))["usage"]["acme/small"]
    assert (tokens["current_usage"], requests["current_usage"]) == (9, 1)
    assert tokens["reset_at"] == requests["reset_at"] == tomorrow


async def test_usage_over_all_slugs_and_of_each_kind_of_tokens(lab: Lab, database: Database) -> None:
    for slug in ("acme/small", "acme/free"):
        await lab.endpoint(slug)
    limits = [day_limit(100, kind) for kind in ("INPUT_TOKEN", "OUTPUT_TOKEN", "TOKEN", "REQUEST")]
    made = await lab.made_group("cust", SMALL, {"slug": "acme/free"}, {"slug": "*", "usage_limits": limits})
    assert [model["slug"] for model in made["effective_models"]] == ["acme/small", "acme/free", "*"]
    before = (await usage(lab, made))["usage"]
    assert [limit["current_usage"] for limit in before["*"]] == [None] * 4
    count(database, made["id"])
    count(database, made["id"], slug="acme/free", number=2)
    assert [limit["current_usage"] for limit in (await usage(lab, made))["usage"]["*"]] == [10, 8, 18, 2]
    assert (await lab.client.get(f"{GROUPS}/{made['id']}")).json() == made


@pytest.mark.parametrize("slug", ["acme/small", "*"])
async def test_usage_of_a_month_is_the_sum_of_its_days(lab: Lab, database: Database, slug: str) -> None:
    await lab.endpoint("acme/small")
    limit = {"type": "TOKEN", "unit": "MONTH", "threshold": 100}
    made = await lab.made_group("cust", SMALL | {"usage_limits": [day_limit(9)]})
    now = clock.steady()()
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for number, at in enumerate((first - timedelta(seconds=1), first, now), 1):  # days are opened forwards
        count(database, made["id"], number=number, at=at)
    models = [SMALL | {"usage_limits": [day_limit(9)]}] if slug == "*" else []
    models += [{"slug": slug, "usage_limits": [day_limit(9), limit]}]
    changed = await lab.client.patch(f"{GROUPS}/{made['id']}", json={"models": models})
    assert changed.status_code == 200, changed.text
    day, month = (await usage(lab, made))["usage"][slug]
    assert day["current_usage"] == (18 if now.day == 1 else 9)
    assert month["current_usage"] == 18
    assert month["reset_at"] == (first + timedelta(days=31)).strftime("%Y-%m-01T00:00:00.000Z")


async def test_an_entry_over_all_slugs_is_compared_with_its_like_alone(lab: Lab) -> None:
    await lab.endpoint("acme/small")
    over_all = {"slug": "*", "usage_limits": [day_limit(10)]}
    root = await lab.made_group("root", SMALL, over_all, limit_enforcement="CASCADING")
    child = SMALL | {"usage_limits": [day_limit(11)]}
    made = await lab.made_group("child", child, parent_group_id=root["id"])
    above = {"models": [child, {"slug": "*", "usage_limits": [day_limit(11)]}]}
    refused = await lab.client.patch(f"{GROUPS}/{made['id']}", json=above)
    assert refused.status_code == 400
    assert "*: TOKEN per DAY is 11, above 10" in refused.json()["error"]["message"]
    named = await lab.client.post("/v1/gateway/endpoints", json=helpers.endpoint_body("*"))
    assert named.status_code == 400


@pytest.mark.parametrize("mode", ["INDEPENDENT", "CASCADING"])
async def test_usage_is_of_the_group_that_counts(lab: Lab, database: Database, mode: str) -> None:
    await lab.endpoint("acme/small")
    limited = SMALL | {"usage_limits": [day_limit(10, "REQUEST")]}
    root = await lab.made_group("root", limited, limit_enforcement=mode)
    child = await lab.made_group("child", SMALL, parent_group_id=root["id"])
    count(database, root["id"])
    (limit,) = (await usage(lab, child))["usage"]["acme/small"]
    assert limit["source_group"] == root["id"]
    assert limit["current_usage"] == (1 if mode == "CASCADING" else None)


async def test_every_change_is_in_the_audit_log_with_its_actor(lab: Lab, database: Database) -> None:
    secret = await lab.secret("upstream", "sk-1")
    endpoint = await lab.endpoint("acme/small")
    await lab.client.patch(f"{ENDPOINTS}/{endpoint['id']}", json={"slug": "acme/new"})
    group = await lab.made_group("cust", {"slug": "acme/new"})
    await lab.client.patch(f"{GROUPS}/{group['id']}", json={"metadata": {"name": "n"}})
    key = await lab.key(group["id"])
    await lab.client.delete(f"{GROUPS}/{group['id']}/api_keys/{key[:16]}")
    await lab.client.delete(f"{GROUPS}/{group['id']}")
    await lab.client.delete(f"{ENDPOINTS}/{endpoint['id']}")
    await lab.client.delete(f"/v1/secrets/{secret}")
    onboarded, *entries = helpers.audited(database)
    assert (onboarded.actor, onboarded.action) == ("operator", "workspace.create")
    assert {entry.actor for entry in entries} == {lab.api_key[:16]}
    assert {entry.workspace_id for entry in entries} == {lab.id}
    done = [(entry.action, entry.subject, entry.before is not None, entry.after is not None) for entry in entries]
    assert sorted(done) == sorted(
        [
            ("secret.create", secret, False, True),
            ("endpoint.create", endpoint["id"], False, True),
            ("endpoint.update", endpoint["id"], True, True),
            ("group.create", group["id"], False, True),
            ("group.update", group["id"], True, True),
            ("api_key.create", key[:16], False, True),
            ("api_key.revoke", key[:16], True, False),
            ("group.delete", group["id"], True, False),
            ("endpoint.delete", endpoint["id"], True, False),
            ("secret.delete", secret, True, False),
        ]
    )


async def test_a_refused_change_is_not_in_the_audit_log(lab: Lab, database: Database) -> None:
    before = len(helpers.audited(database))
    assert (await lab.group("cust", {"slug": "acme/none"})).status_code == 400
    assert len(helpers.audited(database)) == before


async def test_a_new_name_of_a_large_group_leaves_a_line_in_the_audit_log_and_nothing_for_the_proxies(
    database: Database, lab: Lab
) -> None:
    """It left a megabyte in two tables each time."""
    await lab.endpoint("acme/m")
    rates = [{"type": "TOKEN", "unit": "MINUTE", "threshold": 5}]
    group = await lab.made_group("large", {"slug": "acme/m", "rate_limits": rates})
    told = len(helpers.changes(database))
    path = f"/v1/gateway/groups/{group['id']}"
    assert (await lab.client.patch(path, json={"metadata": {"name": "renamed"}})).json()["metadata"][
        "name"
    ] == "renamed"
    entry = helpers.audited(database)[-1]
    assert (entry.action, entry.before, entry.after) == ("group.update", {"name": None}, {"name": "renamed"})
    assert len(helpers.changes(database)) == told
    await lab.client.patch(path, json={"metadata": {"name": "again"}, "models": [{"slug": "acme/m"}]})
    assert len(helpers.changes(database)) == told + 1
    assert (await lab.client.get(path)).json()["models"][0]["rate_limits"] == []
