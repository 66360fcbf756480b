"""The hosted product's published samples for the shell, sent as curl sends them: with no word about the body's type."""

import base64
import json
from typing import Any

import pytest

from runtime.database.engines import Database
from tests.integration.control import furnished, helpers
from tests.integration.control.furnished import PRIVATE, SLUG
from tests.integration.control.helpers import Lab

CURLS_OWN = {"content-type": "application/x-www-form-urlencoded", "accept": "*/*"}
ENDPOINTS, GROUPS = "/v1/gateway/endpoints", "/v1/gateway/groups"
TARGET = {
    "environment_name": "staging",
    "model_id": "3kZ9xqd",
    "provider": "BASETEN",
    "target_model": "custom/model-name",
}
SAMPLES: list[tuple[str, str, Any]] = [
    ("GET", ENDPOINTS, None),
    ("POST", ENDPOINTS, {"slug": "acme/mymodel-4", "region": "UNRESTRICTED", "targets": [TARGET]}),
    ("GET", f"{ENDPOINTS}/{{endpoint_id}}", None),
    ("PATCH", f"{ENDPOINTS}/{{endpoint_id}}", {"targets": [TARGET]}),
    ("GET", GROUPS, None),
    (
        "POST",
        GROUPS,
        {
            "metadata": {"name": "Acme prod", "external_entity_id": "cust_42"},
            "models": [{"slug": SLUG}],
            "hierarchy": {"limit_enforcement": "INDEPENDENT", "parent_group_id": "{group_id}"},
        },
    ),
    ("GET", f"{GROUPS}/{{group_id}}", None),
    ("PATCH", f"{GROUPS}/{{group_id}}", {"metadata": {"name": "Acme Prod"}, "models": None}),
    ("GET", f"{GROUPS}/{{group_id}}/api_keys", None),
    ("POST", f"{GROUPS}/{{group_id}}/api_keys", {"name": "prod-key-1"}),
    (
        "POST",
        f"{GROUPS}/{{group_id}}/api_keys/register",
        {"name": "my-model-api-key", "key": "my-secure-api-key-value-0123456789"},
    ),
    ("GET", f"{GROUPS}/{{group_id}}/api_keys/{{api_key_prefix}}", None),
    ("DELETE", f"{ENDPOINTS}/{{endpoint_id}}", None),
]
"""Of each: method, path, body. What must exist stands in braces; the key is longer, as keys must be here."""


async def test_every_published_sample_works(lab: Lab, database: Database) -> None:
    known = await furnished.furnish(database, lab)
    assert len(SAMPLES) == 13
    for method, path, body in SAMPLES:
        raw = b"" if body is None else json.dumps(body, indent=2).replace("{group_id}", known["group_id"]).encode()
        headers = {"authorization": f"Bearer {lab.api_key}"} | (CURLS_OWN if raw else {})
        if path.endswith("/register"):
            headers["x-baseten-signature"] = base64.b64encode(PRIVATE.sign(raw)).decode()
        answer = await lab.client.request(method, path.format(**known), content=raw, headers=headers)
        assert answer.status_code == 200, (method, path, answer.text)


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded; charset=utf-8", "application/json"])
async def test_what_is_read_is_json_whatever_it_is_called(lab: Lab, content_type: str) -> None:
    headers = {"content-type": content_type}
    body = json.dumps(helpers.endpoint_body("acme/m")).encode()
    assert (await lab.client.post(ENDPOINTS, content=body, headers=headers)).status_code == 200
    form = await lab.client.post(ENDPOINTS, content=b"slug=acme%2Fn&region=EU", headers=headers)
    assert (form.status_code, form.json()["error"]["code"]) == (400, "invalid_body")


@pytest.mark.parametrize("headers", [{}, CURLS_OWN, {"content-type": "application/json"}])
async def test_no_body_is_an_empty_object_where_all_is_optional(
    lab: Lab, database: Database, headers: dict[str, str]
) -> None:
    group = (await furnished.furnish(database, lab))["group_id"]
    minted = await lab.client.post(f"{GROUPS}/{group}/api_keys", headers=headers)
    assert (minted.status_code, minted.json()["name"]) == (200, None)
    redriven = await lab.client.post("/v1/gateway/deliveries/redrive", headers=headers)
    assert redriven.json() == {"count": 1}
    missing = await lab.client.post("/v1/gateway/billing_webhook/rotate_secret", headers=headers)
    assert (missing.status_code, missing.json()["error"]["code"]) == (400, "invalid_body")
