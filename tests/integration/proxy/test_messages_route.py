"""The Messages API over TCP, as Anthropic's SDK calls it: what arrives, comes back and is billed (contract 3.3)."""

import json
from collections.abc import Callable
from typing import Any

import anthropic
import pytest

from schemas.targets import Provider
from schemas.usage import Outcome, Tokens, UsageSource
from tests.integration.proxy.gate import KEY, Gate
from tests.integration.proxy.tcp import Line, Play, Received, TcpUpstream
from tests.unit.proxy.dialects.anthropic import vendor
from tests.unit.proxy.kit import SLUG

ASKED: dict[str, Any] = {"model": SLUG, "max_tokens": 64, "messages": [{"role": "user", "content": "Say hi"}]}
HELLO = [{"type": "text", "text": "Hello"}]
COUNTED = Tokens(input_tokens=60, output_tokens=7, cached_input_tokens=30)
PATH = "/v1/messages"
ID = [("request-id", "req_theirs")]


@pytest.fixture
async def claude(open_gate: Callable[..., Any], upstream: TcpUpstream) -> Gate:
    opened: Gate = await open_gate(anthropic_base_url=f"http://127.0.0.1:{upstream.port}")
    opened.target(SLUG, "sk-ant-1", provider=Provider.ANTHROPIC, target_model="claude-1")
    return opened


def sdk(gate: Gate, api_key: str = KEY) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=gate.url, api_key=api_key, max_retries=0)


def answering(told: dict[str, Any], status: int = 200) -> Play:
    async def play(_received: Received, line: Line) -> None:
        await line.answer(json.dumps(told).encode(), status, ID)

    return play


def streaming(*told: dict[str, Any]) -> Play:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        for event in told:
            await line.chunk(vendor.wire([event]))
        await line.end_stream()

    return play


async def test_what_reaches_the_provider_and_what_comes_back(claude: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering(vendor.whole(HELLO))
    async with sdk(claude) as client:
        answer = await client.messages.create(
            **ASKED,
            metadata={"user_id": None},
            extra_headers={"anthropic-beta": "one,two"},
            extra_query={"beta": "true"},
        )
    assert (answer.model, answer.usage.input_tokens, answer._request_id) == (SLUG, 10, "req_theirs")
    (received,) = upstream.received
    assert received.line == "POST /v1/messages?beta=true HTTP/1.1"
    names = {name for name, _ in received.headers}
    assert names == {
        "accept",
        "anthropic-beta",
        "anthropic-version",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-api-key",
        "x-request-id",
    }
    assert received.header("x-api-key") == "sk-ant-1"
    assert received.header("anthropic-version") == "2026-10-21"  # what this SDK sends
    assert received.header("anthropic-beta") == "one,two"
    assert json.loads(received.body) == ASKED | {"model": "claude-1", "metadata": {"user_id": None}}
    event = await claude.event()
    assert (event.route, event.outcome, event.tokens) == ("messages", Outcome.COMPLETE, COUNTED)
    assert (event.usage_source, event.request_metadata) == (UsageSource.PROVIDER, None)


async def test_a_stream_keeps_its_events_but_for_the_model(claude: Gate, upstream: TcpUpstream) -> None:
    upstream.play = streaming(*vendor.events(vendor.BLOCKS, "tool_use"))
    async with sdk(claude) as client, client.messages.stream(**ASKED) as stream:
        whole = await stream.get_final_message()
    assert (whole.model, whole.stop_reason) == (SLUG, "tool_use")
    assert [block.model_dump(exclude_none=True) for block in whole.content] == vendor.BLOCKS
    event = await claude.event()
    assert (event.route, event.stream, event.tokens) == ("messages", True, COUNTED)


@pytest.mark.parametrize(
    "credential",
    [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}, {"authorization": f"Api-Key {KEY}"}],
    ids=["x-api-key", "Bearer", "Api-Key"],
)
async def test_each_way_to_send_a_key(claude: Gate, upstream: TcpUpstream, credential: dict[str, str]) -> None:
    upstream.play = answering(vendor.whole(HELLO))
    async with claude.client(headers=credential) as client:
        assert (await client.post(PATH, json=ASKED)).status_code == 200
        assert KEY not in str(upstream.received[0].headers)


async def test_our_errors_have_this_apis_shape(claude: Gate, upstream: TcpUpstream) -> None:
    async with sdk(claude, api_key="sky_unknown_key_.0123456789") as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(**ASKED)
    async with sdk(claude) as client:
        with pytest.raises(anthropic.NotFoundError) as missing:
            await client.messages.create(**ASKED | {"model": "lab/none"})
    told = missing.value.body
    assert isinstance(told, dict)
    assert (told["type"], told["error"]["type"], told["error"]["code"]) == (
        "error",
        "not_found_error",
        "model_not_found",
    )
    assert told["request_id"] == missing.value.response.headers["x-request-id"]
    assert not upstream.received


@pytest.mark.parametrize(("status", "becomes"), [(400, 400), (429, 429), (529, 529), (401, 502)])
async def test_the_providers_errors_pass(claude: Gate, upstream: TcpUpstream, status: int, becomes: int) -> None:
    told = {"type": "error", "error": {"type": "some_error", "message": "No."}, "request_id": "req_1"}
    upstream.play = answering(told, status)
    async with claude.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert answer.status_code == becomes
    assert answer.json()["type"] == "error"
    assert (answer.json() == told) is (status == becomes)
    assert not claude.events


async def test_a_stream_that_is_cut_off_ends_with_an_error_that_the_sdk_sees(
    claude: Gate, upstream: TcpUpstream
) -> None:
    said = [vendor.opened(0, {"type": "text", "text": ""}), vendor.added(0, "text_delta", text="x" * 400)]
    upstream.play = streaming(vendor.start(input_tokens=500), *said)
    async with sdk(claude) as client:
        with pytest.raises(anthropic.APIStatusError, match="broke off"):
            async with client.messages.stream(**ASKED) as stream:
                await stream.get_final_message()
    event = await claude.event()
    assert (event.outcome, event.tokens) == (Outcome.UPSTREAM_ERROR, Tokens(input_tokens=500, output_tokens=100))


async def test_a_stream_without_its_last_event_but_with_a_reason_to_stop_is_whole(
    claude: Gate, upstream: TcpUpstream
) -> None:
    upstream.play = streaming(*vendor.events([{"type": "text", "text": "Hi"}], "end_turn")[:-1])
    async with claude.client() as client:
        assert "error" not in (await client.post(PATH, json=ASKED | {"stream": True})).text
    assert (await claude.event()).outcome is Outcome.COMPLETE


async def test_tokens_are_counted_for_free(claude: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering({"input_tokens": 14})
    asked = {name: value for name, value in ASKED.items() if name != "max_tokens"}
    async with sdk(claude) as client:
        counted = await client.messages.count_tokens(**asked)
        assert counted.input_tokens == 14
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(**asked | {"model": "lab/none"})
    (received,) = upstream.received
    assert received.line == "POST /v1/messages/count_tokens HTTP/1.1"
    assert json.loads(received.body) == asked | {"model": "claude-1"}
    assert not claude.events


async def test_who_speaks_something_else_is_not_found(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        for path in (PATH, f"{PATH}/count_tokens"):
            answer = await client.post(path, json=ASKED)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert (await client.get(PATH)).status_code == 405
    assert not upstream.received
