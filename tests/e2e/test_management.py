"""What the management API changes is what the developer's next call meets, in one process on SQLite (contract 2)."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import Lab, eventually
from tests.support import processes

pytestmark = pytest.mark.slow
SOON_S = 60
"""Within a second, on a machine that has other things to do as well."""
HELLO: Any = [{"role": "user", "content": "Hello"}]
COMPLETION = {
    "id": "c-1",
    "object": "chat.completion",
    "created": 1,
    "model": "theirs",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}


class Upstream(ThreadingHTTPServer):
    """Answers every call, and keeps what it was asked: (path, Authorization)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.calls.append((self.path, self.headers["authorization"]))
        body = json.dumps(COMPLETION).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as serving:
        thread = Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Lab]:
    """Return a lab that may use the operator's credential."""
    folder = tmp_path_factory.mktemp("management")
    data = str(folder / "data")
    words = ("workspace", "create", "--name", "lab", "--org-prefix", "lab", "--operator-credential", "--data", data)
    made = processes.answer(*words)
    settings = {
        "openai_base_url": f"{upstream.url}/openai/v1",
        "baseten_model_api_url": f"{upstream.url}/models/v1",
        "baseten_url_template": f"{upstream.url}/model-{{model_id}}/environments/{{environment_name}}/sync/v1",
        "baseten_api_key": "operators",
        "accept_bearer": "true",
    }
    serve = ("serve", "--data", data, "--port", "0", "--ops-port", "0")
    with processes.server(folder / "serve.log", *serve, **settings) as gateway:
        there = Lab(folder, gateway.announced["url"], made["api_key"], made["webhook_secret"], upstream.url)
        yield there
        for client in there.clients:
            client.close()
    assert gateway.process.returncode == 0
    assert "operators" not in (folder / "serve.log").read_text()
    assert "sk-" not in (folder / "serve.log").read_text()


def secret(house: Lab, name: str, value: str) -> str:
    headers = {"Authorization": f"Bearer {house.management_key}"}
    answer = httpx.post(f"{house.url}/v1/secrets", headers=headers, json={"name": name, "value": value})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def developer(house: Lab, slug: str, target: dict[str, Any]) -> tuple[str, str]:
    """Make an endpoint and a customer of it: (group id, key)."""
    house.api("POST", "/endpoints", {"slug": slug, "targets": [target]})
    metadata = {"external_entity_id": f"customer of {slug}"}
    group = house.api("POST", "/groups", {"metadata": metadata, "models": [{"slug": slug}]})
    return group["id"], house.api("POST", f"/groups/{group['id']}/api_keys", {})["api_key"]


def call(house: Lab, key: str, slug: str) -> int:
    headers = {"Authorization": f"Api-Key {key}"}
    body = {"model": slug, "messages": HELLO}
    answer = httpx.post(f"{house.url}/v1/chat/completions", headers=headers, json=body, timeout=10)
    return answer.status_code


@pytest.mark.parametrize(
    ("target", "path", "credential"),
    [
        ({"provider": "OPENAI", "target_model": "m", "secret_id": ""}, "/openai/v1", "sk-own"),
        ({"provider": "BASETEN_MODEL_API", "target_model": "m", "secret_id": ""}, "/models/v1", "sk-own"),
        ({"provider": "BASETEN", "model_id": "abc"}, "/model-abc/environments/production/sync/v1", "operators"),
        (
            {"provider": "BASETEN", "model_id": "abc", "environment_name": "staging", "secret_id": ""},
            "/model-abc/environments/staging/sync/v1",
            "sk-own",
        ),
    ],
)
def test_each_providers_calls_carry_their_credential(
    house: Lab, upstream: Upstream, target: dict[str, Any], path: str, credential: str
) -> None:
    if "secret_id" in target:
        target = target | {"secret_id": secret(house, "own", "sk-own")}
    slug = f"lab/{target['provider']}-{target.get('environment_name', '')}"
    _, key = developer(house, slug, target)
    eventually(lambda: call(house, key, slug) == 200)
    assert upstream.calls[-1] == (f"{path}/chat/completions", f"Bearer {credential}")


def test_a_replaced_secret_and_a_changed_endpoint_are_soon_in_force(house: Lab, upstream: Upstream) -> None:
    first = secret(house, "changing", "sk-1")
    target = {"provider": "OPENAI_COMPATIBLE", "base_url": f"{upstream.url}/a/v1/", "target_model": "m"}
    _, key = developer(house, "lab/changing", target | {"secret_id": first})
    eventually(lambda: call(house, key, "lab/changing") == 200, within_s=SOON_S)
    assert upstream.calls[-1] == ("/a/v1/chat/completions", "Bearer sk-1")
    assert secret(house, "changing", "sk-2") == first

    def says(path: str, credential: str | None) -> bool:
        assert call(house, key, "lab/changing") == 200
        return upstream.calls[-1] == (path, credential)

    eventually(lambda: says("/a/v1/chat/completions", "Bearer sk-2"), within_s=SOON_S)
    (endpoint,) = [
        each for each in house.api("GET", "/endpoints?limit=1000")["items"] if each["slug"] == "lab/changing"
    ]
    body = {"targets": [target | {"base_url": f"{upstream.url}/b/v1"}]}
    house.api("PATCH", f"/endpoints/{endpoint['id']}", body)
    eventually(lambda: says("/b/v1/chat/completions", None), within_s=SOON_S)
    house.api("DELETE", f"/endpoints/{endpoint['id']}")
    eventually(lambda: call(house, key, "lab/changing") == 404, within_s=SOON_S)


def test_keys_end_with_their_revocation_and_with_any_group_above(house: Lab, upstream: Upstream) -> None:
    target = {"provider": "OPENAI_COMPATIBLE", "base_url": f"{upstream.url}/v1", "target_model": "m"}
    root, revoked = developer(house, "lab/tree", target)
    metadata = {"external_entity_id": "below"}
    hierarchy = {"parent_group_id": root}
    below = house.api(
        "POST", "/groups", {"metadata": metadata, "models": [{"slug": "lab/tree"}], "hierarchy": hierarchy}
    )
    kept = house.api("POST", f"/groups/{below['id']}/api_keys", {})["api_key"]
    for key in (revoked, kept):
        eventually(lambda key=key: call(house, key, "lab/tree") == 200, within_s=SOON_S)  # type: ignore[misc]
    house.api("DELETE", f"/groups/{root}/api_keys/{revoked[:16]}")
    eventually(lambda: call(house, revoked, "lab/tree") == 401, within_s=SOON_S)
    assert call(house, kept, "lab/tree") == 200
    house.api("DELETE", f"/groups/{root}")
    eventually(lambda: call(house, kept, "lab/tree") == 401, within_s=SOON_S)
    eventually(lambda: len(house.ledger("below")) >= 2)  # what was counted stays, and what was in flight comes


def test_the_first_call_after_a_change_meets_it(house: Lab, upstream: Upstream) -> None:
    """On one connection for each role, so that no time passes between an answer and the next call."""
    target = {"provider": "OPENAI_COMPATIBLE", "base_url": f"{upstream.url}/v1", "target_model": "m"}
    manage = {"authorization": f"Api-Key {house.management_key}"}
    with httpx.Client(base_url=f"{house.url}/v1/gateway", headers=manage) as lab, httpx.Client() as caller:

        def api(method: str, path: str, body: Any = None) -> Any:
            answer = lab.request(method, path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        def status(key: str, slug: str) -> int:
            headers, body = {"authorization": f"Api-Key {key}"}, {"model": slug, "messages": HELLO}
            return caller.post(f"{house.url}/v1/chat/completions", headers=headers, json=body).status_code

        for number in range(20):
            slug = f"lab/first-{number}"
            api("POST", "/endpoints", {"slug": slug, "targets": [target]})
            metadata = {"external_entity_id": slug}
            group = api("POST", "/groups", {"metadata": metadata, "models": [{"slug": slug}]})["id"]
            key = api("POST", f"/groups/{group}/api_keys", {})["api_key"]
            assert status(key, slug) == 200
            nothing = {"type": "REQUEST", "unit": "SECOND", "threshold": 0}
            api("PATCH", f"/groups/{group}", {"models": [{"slug": slug, "rate_limits": [nothing]}]})
            assert status(key, slug) == 429
            api("DELETE", f"/groups/{group}/api_keys/{key[:16]}")
            assert status(key, slug) == 401


def test_the_guides_requests_answer_with_the_same_fields(house: Lab, upstream: Upstream) -> None:
    """The hosted product's guides, with the base URL changed."""
    headers = {"Authorization": f"Bearer {house.management_key}"}
    with httpx.Client(base_url=house.url, headers=headers) as guide:
        target = {"provider": "BASETEN", "model_id": "3kZ9xqd", "environment_name": "staging"}
        target["target_model"] = "custom/model-name"
        body = {"slug": "lab/mymodel-4", "region": "UNRESTRICTED", "targets": [target]}
        endpoint = guide.post("/v1/gateway/endpoints", json=body).json()
        assert set(endpoint) == {"id", "slug", "region", "created_at", "updated_at", "targets"}
        assert endpoint["targets"] == [target]
        group = guide.post(
            "/v1/gateway/groups",
            json={
                "metadata": {"name": "Acme prod", "external_entity_id": "cust_42"},
                "models": [
                    {
                        "slug": "lab/mymodel-4",
                        "rate_limits": [{"type": "REQUEST", "unit": "MINUTE", "threshold": 1000}],
                        "usage_limits": [{"type": "TOKEN", "unit": "DAY", "threshold": 10_000_000}],
                    }
                ],
                "hierarchy": {"limit_enforcement": "INDEPENDENT", "parent_group_id": None},
            },
        ).json()
        assert set(group) == {"id", "metadata", "models", "effective_models", "hierarchy", "created_at", "updated_at"}
        limits = {"type", "unit", "threshold"}
        assert set(group["models"][0]["usage_limits"][0]) == limits
        assert set(group["effective_models"][0]["usage_limits"][0]) == limits | {"source_group"}
        assert set(group["hierarchy"]) == {"limit_enforcement", "parent_group_id"}
        minted = guide.post(f"/v1/gateway/groups/{group['id']}/api_keys", json={"name": "prod-key-1"}).json()
        assert set(minted) == {"api_key", "prefix", "name"}
        assert guide.get(f"/v1/gateway/groups/{group['id']}").json() == group
        key = minted["api_key"]
        eventually(lambda: call(house, key, "lab/mymodel-4") == 200, within_s=SOON_S)
        usage = f"/v1/gateway/groups/{group['id']}/usage"
        (limit,) = eventually(
            lambda: (used := guide.get(usage).json()["usage"]["lab/mymodel-4"])[0]["current_usage"] and used
        )
        assert set(limit) == limits | {"current_usage", "reset_at", "source_group"}
        assert limit["current_usage"] % 5 == 0


def test_the_guides_sdk_example_works_where_bearer_is_accepted(house: Lab, upstream: Upstream) -> None:
    target = {"provider": "OPENAI_COMPATIBLE", "base_url": f"{upstream.url}/v1", "target_model": "m"}
    _, key = developer(house, "lab/sdk", target)
    eventually(lambda: call(house, key, "lab/sdk") == 200, within_s=SOON_S)
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key=key, max_retries=0) as client:
        assert client.chat.completions.create(model="lab/sdk", messages=HELLO).model == "lab/sdk"


def test_the_description_has_a_page_that_asks_no_other_host(house: Lab) -> None:
    page = httpx.get(f"{house.url}/schema")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "/v1/gateway/endpoints/{endpoint_id}" in page.text
    for asset in ("<script", "src=", "<link", "url(", "@import"):
        assert asset not in page.text
    described = httpx.get(f"{house.url}/schema/openapi.json").json()
    assert "/v1/secrets" in described["paths"]


def test_under_a_labs_own_host_only_its_keys_work(house: Lab) -> None:
    workspace = ("--data", str(house.data))
    other = processes.answer("workspace", "create", "--name", "other", "--org-prefix", "other", *workspace)
    target = {"provider": "BASETEN", "model_id": "abc"}
    _, developers = developer(house, "lab/hosted", target)
    own, others = house.management_key, other["api_key"]

    def under(host: str, path: str, key: str, **headers: str) -> int:
        sent = {"authorization": f"Api-Key {key}", "host": host} | headers
        return httpx.get(f"{house.url}{path}", headers=sent, timeout=10).status_code

    def completion(host: str, key: str) -> httpx.Response:
        sent = {"authorization": f"Api-Key {key}", "host": host}
        body = {"model": "lab/hosted", "messages": HELLO}
        return httpx.post(f"{house.url}/v1/chat/completions", headers=sent, json=body, timeout=10)

    groups, models = "/v1/gateway/groups", "/v1/models"
    assert under("api.lab.example", groups, others) == 200
    processes.answer("workspace", "add-host", "--workspace", "lab", "--host", "api.lab.example", *workspace)
    processes.answer("workspace", "add-host", "--workspace", "other", "--host", "api.other.example", *workspace)
    eventually(lambda: completion("api.other.example", developers).status_code == 401)
    for host in ("api.lab.example", "API.Lab.example.:8443"):
        assert (under(host, groups, own), under(host, groups, others)) == (200, 401)
        assert under(host, models, developers) == completion(host, developers).status_code == 200
        assert (under(host, "/schema", own), under(host, "/schema/openapi.json", own)) == (404, 404)
        assert under(host, "/healthz", own) == 200
    refused = completion("api.other.example", developers)
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert refused.headers["x-request-id"]
    assert (under("api.other.example", groups, own), under("api.other.example", models, developers)) == (401, 401)
    assert under("api.lab.example", groups, others, **{"x-forwarded-host": "api.other.example"}) == 401
    assert under("nobody.example", groups, others) == under("nobody.example", "/schema", own) == 200
    processes.answer("workspace", "remove-host", "--workspace", "other", "--host", "api.other.example", *workspace)
    eventually(lambda: completion("api.other.example", developers).status_code == 200)
