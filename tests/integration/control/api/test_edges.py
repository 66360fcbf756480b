"""Who may call, and what is answered to input that no lab should send."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litestar import Litestar

from control.api import common
from control.store.endpoints import SqlEndpoints
from runtime.database.engines import Database
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab
from tests.support import engines

ENDPOINTS = "/v1/gateway/endpoints"
GROUPS = "/v1/gateway/groups"


def error(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return dict(body["error"])


@pytest.mark.parametrize("header", ["Api-Key {}", "Bearer {}", "api-key {}", "BEARER  {}"])
async def test_both_schemes_are_taken(lab: Lab, header: str) -> None:
    answer = await lab.client.get(ENDPOINTS, headers={"authorization": header.format(lab.api_key)})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Api-Key", "Basic {}", "{}", "Api-Key x{}", "Api-Key {}x", "Api-Key " + "x" * 5000]
)
async def test_other_credentials_are_unauthorized(lab: Lab, header: str) -> None:
    answer = await lab.client.get(ENDPOINTS, headers={"authorization": header.format(lab.api_key)})
    assert answer.status_code == 401
    assert error(answer)["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Api-Key"
    assert lab.api_key not in answer.text


async def test_no_credential_is_unauthorized_before_anything_is_read(app: Litestar) -> None:
    async with helpers.client(app) as client:
        answer = await client.post(ENDPOINTS, content=b"{")
    assert answer.status_code == 401


async def test_a_developers_key_is_forbidden(lab: Lab) -> None:
    await lab.endpoint("acme/m")
    group = await lab.made_group("cust", {"slug": "acme/m"})
    key = (await lab.client.post(f"{GROUPS}/{group['id']}/api_keys", json={})).json()["api_key"]
    answer = await lab.client.get(GROUPS, headers={"authorization": f"Bearer {key}"})
    assert answer.status_code == 403
    assert error(answer)["code"] == "developer_key"
    wrong = await lab.client.get(GROUPS, headers={"authorization": f"Bearer {key}x"})
    assert wrong.status_code == 401


async def test_a_read_key_may_only_get(lab: Lab, database: Database) -> None:
    headers = {"authorization": f"Api-Key {helpers.add_read_key(database, lab.id)}"}
    assert (await lab.client.get(ENDPOINTS, headers=headers)).status_code == 200
    answer = await lab.client.post(ENDPOINTS, headers=headers, json=helpers.endpoint_body("acme/m"))
    assert answer.status_code == 403
    assert error(answer)["code"] == "insufficient_scope"


async def test_a_suspended_workspace_is_forbidden(lab: Lab, other: Lab, database: Database) -> None:
    helpers.suspend(database, lab.id)
    answer = await lab.client.get(ENDPOINTS)
    assert answer.status_code == 403
    assert error(answer)["code"] == "workspace_suspended"
    assert (await other.client.get(ENDPOINTS)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/gateway/nothing", 404), ("PUT", ENDPOINTS, 405), ("PUT", f"{GROUPS}/x", 405)],
)
async def test_unknown_paths_and_methods(lab: Lab, method: str, path: str, status: int) -> None:
    answer = await lab.client.request(method, path)
    assert answer.status_code == status
    error(answer)


@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "TRACE"])
async def test_a_method_that_a_path_does_not_take_is_told_which_it_takes(lab: Lab, method: str) -> None:
    for path, allowed in (("/v1/secrets", "GET, POST"), (f"{GROUPS}/x", "DELETE, GET, PATCH")):
        answer = await lab.client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        error(answer)


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data", "application/xml"])
async def test_a_body_of_another_type_is_refused(lab: Lab, content_type: str) -> None:
    answer = await lab.client.post(GROUPS, content=b"{}", headers={"content-type": content_type})
    assert answer.status_code == 415
    error(answer)


async def test_a_body_may_name_its_charset(lab: Lab) -> None:
    body = json.dumps(helpers.endpoint_body("acme/m")).encode()
    headers = {"content-type": "application/json; charset=utf-8"}
    assert (await lab.client.post(ENDPOINTS, content=body, headers=headers)).status_code == 200


async def test_a_body_too_large_is_refused(lab: Lab) -> None:
    answer = await lab.client.post(GROUPS, content=b" " * (1024 * 1024 + 1))
    assert answer.status_code == 413
    error(answer)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"NaN",
        b'{"metadata": NaN}',
        b"\xff",
        b'{"metadata":{"external_entity_id":"\xed\xa0\x80"},"models":[]}',
        b'{"metadata":{"external_entity_id":"\\ud800"},"models":[{"slug":"acme/m"}]}',
        b'{"metadata":{"external_entity_id":"a\\u0000b"},"models":[{"slug":"acme/m"}]}',
        b'{"metadata":{"external_entity_id":"a","name":1},"models":[{"slug":"acme/m"}]}',
        b'{"metadata":{"external_entity_id":"a"},"models":[{"slug":"acme/m","usage_limits":'
        b'[{"type":"TOKEN","unit":"DAY","threshold":' + b"9" * 5000 + b"}]}]}",
        b'{"metadata":{"external_entity_id":"a"},"models":[{"slug":"acme/m","usage_limits":'
        b'[{"type":"TOKEN","unit":"DAY","threshold":1e400}]}]}',
        b'{"metadata":{"external_entity_id":"a"},"models":{"slug":"acme/m"}}',
        b"[" * 100_000,
        b'{"a":' * 10_000,
        b'{"\\u0000\\n":1}',
    ],
)
async def test_bodies_that_no_lab_should_send_are_refused(lab: Lab, body: bytes) -> None:
    await lab.endpoint("acme/m")
    answer = await lab.client.post(GROUPS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert error(answer)["message"]


async def call_raw(app: Litestar, lab: Lab, receive: Callable[[], Awaitable[dict[str, Any]]]) -> int:
    statuses: list[int] = []

    async def send(message: Any) -> None:
        statuses.extend([message["status"]] if message["type"] == "http.response.start" else [])

    headers = [(b"authorization", f"Api-Key {lab.api_key}".encode()), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": GROUPS, "raw_path": GROUPS.encode(), "query_string": b"",
        "headers": headers, "root_path": "", "scheme": "http", "server": ("gateway.test", 80), "client": None,
        "http_version": "1.1", "asgi": {"version": "3.0"}, "state": {}, "extensions": {},
    }  # fmt: skip
    await app(scope, receive, send)  # type: ignore[arg-type]
    return statuses[0]


async def test_a_client_that_breaks_off_is_no_bug_of_ours(
    app: Litestar, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    messages: list[dict[str, Any]] = [
        {"type": "http.disconnect"},
        {"type": "http.request", "body": b"{", "more_body": True},
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop()

    assert await call_raw(app, lab, receive) == 400
    assert not caplog.records


async def test_a_body_that_never_ends_is_given_up_on(app: Litestar, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "BODY_TIMEOUT_S", 0.01)

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    assert await call_raw(app, lab, receive) == 408


async def test_a_bug_of_ours_is_said_in_the_log_and_hidden_from_the_lab(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("a detail of ours")

    monkeypatch.setattr(SqlEndpoints, "page", fail)
    answer = await lab.client.get(ENDPOINTS)
    assert answer.status_code == 500
    assert "detail" not in error(answer)["message"]
    assert "a detail of ours" in caplog.text


async def test_a_name_taken_at_the_same_moment_is_a_bad_request(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    await lab.endpoint("acme/m")
    monkeypatch.setattr(SqlEndpoints, "slug_taken", lambda *_: False)
    answer = await lab.client.post(ENDPOINTS, json=helpers.endpoint_body("acme/m"))
    assert answer.status_code == 400
    assert error(answer)["code"] == "conflict"


@pytest.mark.parametrize("path", [f"{GROUPS}/%00", f"{GROUPS}?external_entity_id=%00", f"{GROUPS}?%00=1"])
async def test_nul_never_reaches_the_database(lab: Lab, path: str) -> None:
    assert (await lab.client.get(path)).status_code in {200, 400}


async def test_a_database_that_is_away_is_unavailable(lab: Lab, database: Database) -> None:
    with engines.away(database, 1):
        answer = await lab.client.get(ENDPOINTS)
    assert answer.status_code == 503
    assert error(answer)["type"] == "server_error"


async def test_a_wrong_statement_is_our_bug(lab: Lab, database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE management_keys RENAME TO hidden")
    assert (await lab.client.get(ENDPOINTS)).status_code == 500


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
FIELDS = st.sampled_from(
    ["slug", "targets", "region", "metadata", "name", "external_entity_id", "models", "hierarchy", "usage_limits",
     "rate_limits", "type", "unit", "threshold", "limit_enforcement", "parent_group_id", "provider", "base_url"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS | st.sampled_from(["acme/m", "TOKEN", "DAY", "CASCADING", "OPENAI_COMPATIBLE", "https://x.example/v1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
ROUTES = st.sampled_from(
    [("POST", ENDPOINTS), ("POST", GROUPS), ("PATCH", GROUPS + "/{group}"), ("POST", GROUPS + "/{group}/api_keys")]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=ROUTES, value=VALUES)
async def test_no_body_is_a_server_error(lab: Lab, group_id: str, route: tuple[str, str], value: Any) -> None:
    method, path = route
    body = json.dumps(value).encode("utf-8", "surrogatepass")
    answer = await lab.client.request(method, path.format(group=group_id), content=body)
    assert answer.status_code in {200, 400, 404}, answer.text


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    segment=st.binary(max_size=20),
    query=st.dictionaries(st.sampled_from(["limit", "cursor", "external_entity_id"]) | st.text(max_size=3), st.text()),
)
async def test_no_path_or_query_is_a_server_error(lab: Lab, segment: bytes, query: dict[str, str]) -> None:
    path = f"{GROUPS}/{quote(segment)}?{urlencode(query, errors='surrogatepass')}"
    assert (await lab.client.get(path)).status_code in {200, 400, 403, 404, 405}
    listing = await lab.client.get(f"{GROUPS}?{urlencode(query, errors='surrogatepass')}")
    assert listing.status_code in {200, 400}


@pytest.fixture
async def group_id(lab: Lab) -> str:
    await lab.endpoint("acme/m")
    return str((await lab.made_group("fuzzed", {"slug": "acme/m"}))["id"])


async def test_the_description_names_every_status_and_the_key(lab: Lab) -> None:
    described = (await lab.client.get("/schema/openapi.json")).json()
    assert described["info"]["title"] == "Tollgate"
    operations = {
        (path, method): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }
    for operation in operations.values():
        assert set(operation["responses"]) >= {"200", "400", "401", "403", "404", "503"}
        assert "201" not in operation["responses"]
        assert operation["security"] == [{"ManagementKey": []}]
    assert described["components"]["securitySchemes"]["ManagementKey"]["name"] == "Authorization"
