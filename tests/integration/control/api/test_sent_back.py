"""What was read, changed and sent back whole: fields that never change are taken where they are as they were."""

from typing import Any

import pytest
from litestar import Litestar

from control import app as control_app
from runtime.database.engines import Database
from runtime.settings import Settings
from schemas.base import rfc3339
from tests.integration.control import helpers
from tests.integration.control.helpers import VAULT, Lab, day_limit
from tests.unit.metering.factories import HandClock

ENDPOINTS, GROUPS = "/v1/gateway/endpoints", "/v1/gateway/groups"
LIMITED = {"slug": "acme/m", "rate_limits": [], "usage_limits": [day_limit(10)]}


async def test_an_endpoint_may_be_sent_back_whole(lab: Lab) -> None:
    made = await lab.endpoint("acme/m")
    path = f"{ENDPOINTS}/{made['id']}"
    changed = await lab.client.patch(path, json=made | {"slug": "acme/new"})
    assert changed.status_code == 200, changed.text
    assert changed.json() == made | {"slug": "acme/new", "updated_at": changed.json()["updated_at"]}


async def test_a_group_may_be_sent_back_whole(lab: Lab) -> None:
    await lab.endpoint("acme/m")
    root = await lab.made_group("root", LIMITED)
    child = await lab.made_group("child", LIMITED | {"usage_limits": []}, parent_group_id=root["id"])
    child["metadata"]["name"] = "Child"
    child["models"] = [LIMITED | {"usage_limits": [day_limit(3)]}]
    answer = await lab.client.patch(f"{GROUPS}/{child['id']}", json=child)
    assert answer.status_code == 200, answer.text
    own = [day_limit(3) | {"source_group": child["id"]}]
    changed = {"effective_models": [LIMITED | {"usage_limits": own}], "updated_at": answer.json()["updated_at"]}
    assert answer.json() == child | changed
    assert (await lab.client.get(f"{GROUPS}/{child['id']}")).json() == answer.json()


async def test_a_moment_may_be_written_in_other_words(lab: Lab) -> None:
    made = await lab.endpoint("acme/m")
    body = {"slug": "acme/new", "created_at": made["created_at"].replace("Z", "000+00:00"), "region": None}
    assert (await lab.client.patch(f"{ENDPOINTS}/{made['id']}", json=body)).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "another"),
        ("region", "EU"),
        ("created_at", "2026-01-01T00:00:00.000Z"),
        ("created_at", "0001-01-01T00:00:00+14:00"),
    ],
)
async def test_an_endpoints_fields_that_never_change(lab: Lab, field: str, value: str) -> None:
    made = await lab.endpoint("acme/m")
    answer = await lab.client.patch(f"{ENDPOINTS}/{made['id']}", json=made | {"slug": "acme/new", field: value})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
    assert (await lab.client.get(f"{ENDPOINTS}/{made['id']}")).json() == made


async def test_an_endpoint_that_somebody_else_changed_meanwhile_is_refused(lab: Lab, database: Database) -> None:
    clock = HandClock()
    app = Litestar(
        [control_app.build(control_app.desk(database, VAULT, clock, Settings(), helpers.at_once))], logging_config=None
    )
    made = await lab.endpoint("acme/m")
    path = f"{ENDPOINTS}/{made['id']}"
    read = (await lab.client.get(path)).headers["etag"]
    async with helpers.client(app, lab.api_key) as client:
        theirs = (await client.patch(path, json={"slug": "acme/theirs"})).json()
    assert theirs["updated_at"] == rfc3339(clock())
    answer = await lab.client.patch(path, json=made | {"slug": "acme/ours"}, headers={"if-match": read})
    assert (answer.status_code, answer.json()["error"]["param"]) == (412, "If-Match")
    assert (await lab.client.get(path)).json() == theirs


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"id": "another"}, "id"),
        ({"created_at": "2026-01-01T00:00:00.000Z"}, "created_at"),
        ({"hierarchy": {"limit_enforcement": "CASCADING"}}, "hierarchy.limit_enforcement"),
        ({"hierarchy": {"parent_group_id": "another"}}, "hierarchy.parent_group_id"),
        ({"metadata": {"name": "n", "external_entity_id": "another"}}, "metadata.external_entity_id"),
    ],
)
async def test_a_groups_fields_that_never_change(lab: Lab, body: dict[str, Any], param: str) -> None:
    await lab.endpoint("acme/m")
    made = await lab.made_group("cust", LIMITED)
    answer = await lab.client.patch(f"{GROUPS}/{made['id']}", json={"models": [], **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert "never changes" in answer.json()["error"]["message"]
    assert (await lab.client.get(f"{GROUPS}/{made['id']}")).json() == made


async def test_what_never_changes_is_no_change(lab: Lab) -> None:
    await lab.endpoint("acme/m")
    made = await lab.made_group("cust", LIMITED)
    answer = await lab.client.patch(f"{GROUPS}/{made['id']}", json={"id": made["id"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "nothing_to_change")
