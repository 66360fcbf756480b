"""What a refusal says: which field, and what is allowed there; and that nothing is passed over in silence."""

from typing import Any

import httpx
import pytest

from tests.integration.control import furnished, helpers
from tests.integration.control.furnished import QUERIES
from tests.integration.control.helpers import Lab, day_limit

ENDPOINTS, GROUPS = "/v1/gateway/endpoints", "/v1/gateway/groups"
DELIVERIES, EVENTS = "/v1/gateway/deliveries", "/v1/gateway/events"
SMALL = {"slug": "acme/small"}
PYTHONS = ("tuple", "Tuple", "dict", "str,", "int,", "validation", "enum")


def refused(answer: httpx.Response, param: str | None) -> str:
    """Return the message of a 400 about `param`."""
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param), answer.text
    message = str(error["message"])
    assert not any(word in message for word in PYTHONS), message
    assert param is None or message.startswith(f"{param}: ")
    return message


@pytest.mark.parametrize(
    ("path", "query", "param", "allowed"),
    [
        (DELIVERIES, {"status": "lost"}, "status", "pending, delivered, dead, not_due"),
        (DELIVERIES, {"status": "null"}, "status", "pending, delivered, dead, not_due"),
        (ENDPOINTS, {"limit": "null"}, "limit", "from 1 to 1000"),
        (EVENTS, {"order": "bogus", "start_time": "2026-01-01T00:00:00Z"}, "order", "timestamp, recorded"),
        (ENDPOINTS, {"limit": "abc"}, "limit", "from 1 to 1000"),
        (ENDPOINTS, {"limit": "0"}, "limit", "from 1 to 1000"),
        (ENDPOINTS, {"limit": ""}, "limit", "from 1 to 1000"),
        (GROUPS, {"external_entity": "x"}, "external_entity", "limit, cursor, external_entity_id"),
        (ENDPOINTS, {"name": "acme/m"}, "name", "limit, cursor, slug"),
        (DELIVERIES, {"state": "dead"}, "state", "status, limit, cursor"),
        (EVENTS, {"from": "x"}, "from", "start_time, end_time, api_key_prefix, external_entity_id, request_id, order"),
        (EVENTS, {"start_time": "yesterday"}, "start_time", "2026-01-31T12:00:00Z"),
        (f"{ENDPOINTS}/x", {"verbose": "1"}, "verbose", "nothing"),
        (ENDPOINTS, {'"\n': "1"}, '\\"\\n', "limit, cursor"),
        (ENDPOINTS, [("limit", "5"), ("limit", "7")], "limit", "once"),
    ],
)
async def test_a_wrong_query_is_told_what_is_allowed(lab: Lab, path: str, query: Any, param: str, allowed: str) -> None:
    assert allowed in refused(await lab.client.get(path, params=query), param)


async def test_every_operation_refuses_a_name_that_its_query_does_not_know(lab: Lab) -> None:
    document = (await lab.client.get("/schema/openapi.json")).json()
    known = dict.fromkeys(("endpoint_id", "group_id", "secret_id", "delivery_id", "api_key_prefix", "request_id"), "x")
    for call in furnished.calls(document, known):
        query = {**QUERIES.get(call.id, {}), "limits": "1"}
        answer = await lab.client.request(call.method, call.path, params=query)
        message = refused(answer, "limits")
        own = [each["name"] for each in call.described.get("parameters", ()) if each["in"] == "query"]
        assert ", ".join(own) in message


async def test_the_same_value_twice_is_one_value(lab: Lab) -> None:
    assert (await lab.client.get(ENDPOINTS, params=[("limit", "5"), ("limit", "5")])).status_code == 200


async def test_a_stranger_is_not_told_what_a_query_knows(lab: Lab) -> None:
    answer = await lab.client.get(ENDPOINTS, params={"x": "1"}, headers={"authorization": "Api-Key x"})
    assert answer.status_code == 401


def group(*models: Any, **more: Any) -> dict[str, Any]:
    return {"metadata": {"external_entity_id": "c"}, "models": models, **more}


@pytest.mark.parametrize(
    ("path", "body", "param", "allowed"),
    [
        (ENDPOINTS, helpers.endpoint_body("acme/m") | {"colour": 1}, "colour", "known are slug, region, targets"),
        (
            ENDPOINTS,
            helpers.endpoint_body("acme/m", colour=1),
            "targets[0].colour",
            "provider, secret_id, target_model",
        ),
        (ENDPOINTS, {"slug": "acme/m", "targets": []}, "targets", "at least 1"),
        (
            ENDPOINTS,
            {"slug": "acme/m", "targets": helpers.endpoint_body("")["targets"] * 2},
            "targets",
            "at most 1, not 2",
        ),
        (ENDPOINTS, {"slug": "acme/m", "targets": {}}, "targets", "must be a list"),
        (ENDPOINTS, {"slug": "acme/m"}, "targets", "is required"),
        (ENDPOINTS, helpers.endpoint_body("acme/m") | {"region": "MARS"}, "region", "'UNRESTRICTED' or 'EU'"),
        (
            ENDPOINTS,
            {
                "slug": "acme/m",
                "targets": [{"provider": "OPENAI", "target_model": "m", "secret_id": "s", "model_id": "x"}],
            },
            "targets[0].model_id",
            "OPENAI, which takes secret_id, target_model",
        ),
        (
            ENDPOINTS,
            {"slug": "acme/m", "targets": [{"provider": "BASETEN", "model_id": "x", "base_url": "https://x.example"}]},
            "targets[0].base_url",
            "BASETEN, which takes model_id, environment_name, target_model, secret_id",
        ),
        (GROUPS, group(SMALL | {"limits": []}), "models[0].limits", "known are slug, rate_limits, usage_limits"),
        (
            GROUPS,
            group(SMALL | {"usage_limits": [day_limit(1) | {"per": "x"}]}),
            "models[0].usage_limits[0].per",
            "known are type, unit, threshold",
        ),
        (GROUPS, group(SMALL, hierarchy={"parent": "x"}), "hierarchy.parent", "limit_enforcement, parent_group_id"),
        (GROUPS, group(SMALL, SMALL), "models", "a slug may appear at most once"),
        (GROUPS, group(), "models", "at least 1"),
        (GROUPS, group(SMALL | {"usage_limits": [day_limit(-1)]}), "models[0].usage_limits[0].threshold", "equal to 0"),
        (f"{DELIVERIES}/redrive", {"since": "x"}, "since", "known are from, to"),
    ],
)
async def test_a_wrong_body_is_told_what_is_allowed(lab: Lab, path: str, body: Any, param: str, allowed: str) -> None:
    assert allowed in refused(await lab.client.post(path, json=body), param)


@pytest.mark.parametrize(
    ("path", "body", "param", "known"),
    [
        (ENDPOINTS, {"colour": "red"}, "colour", "slug, targets"),
        (GROUPS, {"metadata": {"colour": "red"}}, "metadata.colour", "name, external_entity_id"),
        (GROUPS, {"models": [SMALL | {"colour": "red"}]}, "models[0].colour", "slug, rate_limits, usage_limits"),
    ],
)
async def test_a_wrong_change_is_told_what_is_allowed(lab: Lab, path: str, body: Any, param: str, known: str) -> None:
    """Where a field may be null its members are known all the same."""
    assert known in refused(await lab.client.patch(f"{path}/x", json=body), param)
