"""The main job as its people see it: developer, lab, and what arrives at both ends."""

import base64
import hashlib
import hmac
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import standardwebhooks

from tests.e2e.conftest import SLUG, TARGET_MODEL, Lab, eventually
from tests.support import processes

pytestmark = pytest.mark.slow
HELLO: Any = [{"role": "user", "content": "Hello"}]


def test_the_sdk_calls_plain_and_is_counted(lab: Lab) -> None:
    _, key = lab.customer("plain")
    completion = lab.sdk(key).chat.completions.create(model=SLUG, messages=HELLO, metadata={"order": "1"})
    assert completion.model == SLUG
    assert completion.usage is not None
    (row,) = eventually(lambda: lab.ledger("plain"))
    assert (row["input_tokens"], row["output_tokens"]) == (
        completion.usage.prompt_tokens,
        completion.usage.completion_tokens,
    )
    assert (row["usage_source"], row["outcome"], row["stream"]) == ("provider", "complete", 0)
    assert row["request_id"] == completion._request_id


def test_a_stream_without_include_usage_shows_none_and_is_counted_by_the_provider(lab: Lab) -> None:
    _, key = lab.customer("streamed")
    chunks = list(lab.sdk(key).chat.completions.create(model=SLUG, messages=HELLO, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert {chunk.model for chunk in chunks} == {SLUG}
    assert all(chunk.choices for chunk in chunks)
    (row,) = eventually(lambda: lab.ledger("streamed"))
    assert (row["output_tokens"], row["usage_source"], row["stream"]) == (8, "provider", 1)


def test_a_stream_with_include_usage_keeps_its_usage_chunk(lab: Lab) -> None:
    _, key = lab.customer("asked")
    stream = lab.sdk(key).chat.completions.create(
        model=SLUG, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.usage is not None
    assert (last.choices, last.usage.completion_tokens) == ([], 8)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_reaches_the_upstream_unchanged_but_for_two_fields(lab: Lab, streamed: bool) -> None:
    _, key = lab.customer(f"bytes-{streamed}")
    marker = f"unchanged {streamed}"
    stream = ' , "stream" : true, "stream_options": {"x":1.0,"include_usage":false}' if streamed else ""
    body = (
        '{ "zeta":12345678901234567890123456789, "temperature":1.0,\t"messages":[{"content":"caf\\u00e9 café '
        f'\\"model\\": 1 {marker}","role":"user"}}],\n "unknown":{{"model":"not this","e":1E5,"n":-0.0}}'
        f'{stream}, "model" : "{SLUG}" }}'
    )
    answer = httpx.post(
        f"{lab.url}/v1/chat/completions", content=body.encode(), headers={"Authorization": f"Api-Key {key}"}
    )
    assert answer.status_code == 200
    (sent,) = [recorded for recorded in lab.recorded_bodies() if marker.encode() in recorded]
    expected = body.replace(f'"model" : "{SLUG}"', f'"model" : "{TARGET_MODEL}"')
    expected = expected.replace('"include_usage":false', '"include_usage":true')
    assert sent == expected.encode()


def test_the_days_limit_refuses_exactly_at_its_threshold(lab: Lab) -> None:
    parent, _ = lab.customer("parent", usage_limits=[{"type": "REQUEST", "unit": "DAY", "threshold": 1000}])
    _, key = lab.customer("child", parent=parent, usage_limits=[{"type": "REQUEST", "unit": "DAY", "threshold": 5}])
    sdk = lab.sdk(key)
    for _ in range(5):
        sdk.chat.completions.create(model=SLUG, messages=HELLO)
    with pytest.raises(openai.RateLimitError) as refusal:
        sdk.chat.completions.create(model=SLUG, messages=HELLO)
    assert refusal.value.code == "insufficient_quota"
    headers = refusal.value.response.headers
    assert headers["x-should-retry"] == "false"
    assert 0 < int(headers["retry-after"]) <= 86_400
    assert "5 REQUEST per DAY" in refusal.value.response.json()["error"]["message"]
    assert len(eventually(lambda: (rows := lab.ledger("child")) and len(rows) == 5 and rows)) == 5


def test_what_arrives_is_signed_twice_and_holds_each_event_once(lab: Lab) -> None:
    _, key = lab.customer("billed")
    sdk = lab.sdk(key)
    for number in range(7):
        sdk.chat.completions.create(model=SLUG, messages=HELLO, metadata={"number": str(number)})
    events = eventually(lambda: (found := lab.delivered("billed")) and len(found) == 7 and found)
    assert [event["requestMetadata"]["number"] for event in events] == [str(number) for number in range(7)]
    assert len({event["idempotencyKey"] for event in events}) == 7
    deliveries = lab.deliveries()
    for delivery in deliveries:
        headers = {name.lower(): value for name, value in delivery["headers"].items()}
        body = delivery["body"]
        standardwebhooks.Webhook(lab.webhook_secret).verify(body, headers)
        digest = hmac.new(lab.webhook_secret.encode(), body.encode(), hashlib.sha256).hexdigest()
        assert headers["x-baseten-signature"] == f"v1={digest}"
        assert headers["x-baseten-request-id"] == headers["webhook-id"]
        key_bytes = base64.b64decode(lab.webhook_secret.removeprefix("whsec_"))
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{body}".encode()
        expected = base64.b64encode(hmac.new(key_bytes, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert 1 <= len(json.loads(body)["data"]["events"]) <= 100


def test_bearer_is_refused_with_the_mend(lab: Lab) -> None:
    _, key = lab.customer("bearer")
    with (
        openai.OpenAI(base_url=f"{lab.url}/v1", api_key=key, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="Api-Key"),
    ):
        client.chat.completions.create(model=SLUG, messages=HELLO)


def test_models_are_those_of_the_key(lab: Lab) -> None:
    _, key = lab.customer("lister")
    sdk = lab.sdk(key)
    assert [model.id for model in sdk.models.list()] == [SLUG]
    assert sdk.models.retrieve(SLUG).owned_by == "lab"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("lab/other")


def test_the_demo_agrees() -> None:
    demo = Path(__file__).parents[2] / "infra" / "demo.py"
    ended = subprocess.run([sys.executable, str(demo)], capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    rows = re.findall(
        r"│ (?:the upstream's own|the ledger|delivered to the lab) +│ +(\d+) │ +(\d+) │ +(\d+) │", ended.stdout
    )
    assert len(rows) == 3
    assert len(set(rows)) == 1


def found(lab: Lab, request_id: str) -> dict[str, Any]:
    """Return a request once it is known."""
    headers = {"Authorization": f"Api-Key {lab.management_key}"}
    url = f"{lab.url}/v1/gateway/requests/{request_id}"
    answer = eventually(lambda: got if (got := httpx.get(url, headers=headers)).status_code != 404 else None)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_request_is_found_by_its_id_whatever_became_of_it(lab: Lab) -> None:
    _, key = lab.customer("sought", usage_limits=[{"type": "REQUEST", "unit": "DAY", "threshold": 1}])
    sdk = lab.sdk(key)
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.chat.completions.create(model="lab/no-such-model", messages=HELLO)
    complete = sdk.chat.completions.create(model=SLUG, messages=HELLO)
    with pytest.raises(openai.RateLimitError) as refused:
        sdk.chat.completions.create(model=SLUG, messages=HELLO)
    (row,) = eventually(lambda: lab.ledger("sought"))
    assert complete._request_id == row["request_id"]
    whole = eventually(lambda: one if (one := found(lab, row["request_id"]))["delivery"] else None)
    assert (whole["outcome"], whole["event"]["idempotencyKey"]) == ("complete", row["idempotency_key"])
    assert whole["at"] == whole["event"]["timestamp"], "the id names the admission's millisecond"
    delivered = eventually(
        lambda: one if (one := found(lab, row["request_id"])["delivery"])["status"] == "delivered" else None
    )
    assert [attempt["status_code"] for attempt in delivered["attempts"]] == [200]
    assert processes.answer("request", row["request_id"], "--data", str(lab.data)) == found(lab, row["request_id"])
    for error, status, reason, slug in (
        (unknown.value, 404, "model_not_found", "lab/no-such-model"),
        (refused.value, 429, "insufficient_quota", SLUG),
    ):
        seen = found(lab, error.response.headers["x-request-id"])
        assert (seen["outcome"], seen["status"], seen["reason"], seen["model_slug"]) == (
            "refused",
            status,
            reason,
            slug,
        )
        assert (seen["event"], seen["api_key_prefix"]) == (None, key[:16])
        assert processes.answer("request", seen["request_id"], "--data", str(lab.data)) == seen
    log = (lab.folder / "serve.log").read_text(encoding="utf-8")
    (line,) = [one for one in log.splitlines() if refused.value.response.headers["x-request-id"] in one]
    assert f" tollgate.requests: refused request_id={refused.value.response.headers['x-request-id']} " in line
    assert key not in log
    nobody = httpx.get(f"{lab.url}/v1/models", headers={"Authorization": "Api-Key nothing"})
    assert nobody.headers["x-request-id"] in eventually(
        lambda: text if nobody.headers["x-request-id"] in (text := (lab.folder / "serve.log").read_text()) else None
    )
