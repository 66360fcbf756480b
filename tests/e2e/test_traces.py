"""A collector is told of a request, its event, the ledger and its delivery as one trace, and of nobody's words."""

import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.conftest import SLUG, Lab, eventually
from tests.support import collector as collectors
from tests.support.collector import Collector

pytestmark = pytest.mark.slow
ROOT = "POST /v1/chat/completions"
BELOW = {"upstream", "usage event", "ledger", "webhook intake", "webhook attempt"}
PROMPT = "a secret that nobody else may read"


@pytest.fixture(scope="module", autouse=True)
def collector() -> Iterator[Collector]:
    with collectors.running() as there:
        yield there


def call(url: str, key: str, slug: str, **headers: str) -> httpx.Response:
    body = {"model": slug, "messages": [{"role": "user", "content": PROMPT}]}
    told = {"Authorization": f"Api-Key {key}", **headers}
    return httpx.post(f"{url}/v1/chat/completions", headers=told, json=body, timeout=30)


def given() -> tuple[str, str, str]:
    """Return a client's trace: its id, its span's, and the header that names them."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return trace_id, span_id, f"00-{trace_id}-{span_id}-01"


def test_a_clients_trace_goes_on_from_the_request_to_the_delivery(lab: Lab, collector: Collector) -> None:
    _, key = lab.customer("traced")
    trace_id, span_id, header = given()
    answer = call(lab.url, key, SLUG, traceparent=header)
    assert answer.status_code == 200
    eventually(lambda: set(collector.of(trace_id)) == {ROOT, *BELOW})
    found = collector.of(trace_id)
    root = found[ROOT]
    assert (root.parent_id, root.service) == (span_id, "tollgate-embedded")
    assert {found[name].parent_id for name in BELOW} == {root.span_id}
    request_id = answer.headers["x-request-id"]
    assert root.attributes["http.response.status_code"] == "200"
    assert {found[name].attributes["tollgate.request_id"] for name in (ROOT, "upstream", "usage event")} == {request_id}
    assert found["usage event"].attributes["tollgate.outcome"] == "complete"
    assert found["webhook attempt"].attributes["http.response.status_code"] == "200"
    assert (
        found["webhook attempt"].attributes["tollgate.delivery_id"]
        == found["webhook intake"].attributes["tollgate.delivery_id"]
    )
    words = answer.json()["choices"][0]["message"]["content"]
    for secret in (PROMPT, words, key, key.partition(".")[0], lab.management_key, lab.webhook_secret):
        assert not any(secret.encode() in body for body in collector.raw)


def test_a_request_without_a_trace_has_one_of_its_own_and_one_that_is_not_sampled_none(
    lab: Lab, collector: Collector
) -> None:
    _, key = lab.customer("apart")
    unsampled, _, header = given()
    call(lab.url, key, SLUG, traceparent=f"{header[:-2]}00")
    request_ids = [
        call(lab.url, key, SLUG, **headers).headers["x-request-id"] for headers in ({}, {"traceparent": "00-nonsense"})
    ]

    def roots() -> list[str]:
        told = [one for one in tuple(collector.spans) if one.attributes.get("tollgate.request_id") in request_ids]
        return [one.trace_id for one in told if one.name == ROOT]

    eventually(lambda: len(roots()) == 2)
    assert len(set(roots())) == 2
    first, second = roots()
    eventually(lambda: {ROOT, *BELOW} == set(collector.of(first)) == set(collector.of(second)))
    assert [collector.of(one)[ROOT].parent_id for one in (first, second)] == ["", ""]
    assert collector.of(unsampled) == {}


def test_a_refused_request_is_a_span_alone(lab: Lab, collector: Collector) -> None:
    _, key = lab.customer("refused")
    trace_id, _, header = given()
    assert call(lab.url, key, "lab/none", traceparent=header).status_code == 404
    eventually(lambda: collector.of(trace_id))
    assert set(collector.of(trace_id)) == {ROOT}
