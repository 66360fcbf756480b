"""ANTHROPIC targets over TCP: what reaches the provider, what its answers come to, what is billed (contract 3.3)."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from runtime import version
from schemas.targets import Provider
from schemas.usage import Outcome, Tokens, UsageSource
from tests.integration.proxy.gate import ASKED, PATH, Gate
from tests.integration.proxy.tcp import Line, Play, Received, TcpUpstream
from tests.unit.proxy.dialects.anthropic import vendor
from tests.unit.proxy.kit import SLUG

HELLO = [{"type": "text", "text": "Hello"}]
COUNTED = Tokens(input_tokens=60, output_tokens=7, cached_input_tokens=30)


@pytest.fixture
async def claude(open_gate: Callable[..., Any], upstream: TcpUpstream) -> Gate:
    opened: Gate = await open_gate(anthropic_base_url=f"http://127.0.0.1:{upstream.port}")
    opened.target(SLUG, "sk-ant-1", provider=Provider.ANTHROPIC, target_model="claude-1")
    return opened


def answering(told: dict[str, Any], status: int = 200) -> Play:
    async def play(_received: Received, line: Line) -> None:
        await line.answer(json.dumps(told).encode(), status)

    return play


def streaming(*told: dict[str, Any], whole: bool = True) -> Play:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        for event in told:
            await line.chunk(vendor.wire([event]))
        if whole:
            await line.end_stream()
        else:
            line.break_off()

    return play


async def test_what_reaches_the_provider_and_what_comes_back(claude: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering(vendor.whole(HELLO))
    async with claude.client() as client:
        answer = await client.post(PATH, json=ASKED | {"metadata": {"a": "b"}})
    assert answer.status_code == 200
    found = answer.json()
    assert (found["model"], found["choices"][0]["message"]["content"]) == (SLUG, "Hello")
    assert found["usage"] == vendor.CHAT_USAGE
    (received,) = upstream.received
    assert received.line == "POST /v1/messages HTTP/1.1"
    assert dict(received.headers) == {
        "accept": "*/*",
        "anthropic-version": "2023-06-01",
        "content-type": "application/json",
        "content-length": str(len(received.body)),
        "host": f"127.0.0.1:{upstream.port}",
        "user-agent": f"tollgate/{version.current()}",
        "x-api-key": "sk-ant-1",
        "x-request-id": answer.headers["x-request-id"],
    }
    assert json.loads(received.body) == {
        "model": "claude-1",
        "max_tokens": 16_384,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hi"}]}],
    }
    event = await claude.event()
    assert (event.outcome, event.tokens, event.usage_source) == (Outcome.COMPLETE, COUNTED, UsageSource.PROVIDER)
    assert event.request_metadata == {"a": "b"}


async def test_an_endpoint_that_says_what_its_model_answers_is_asked_for_as_much(
    claude: Gate, upstream: TcpUpstream
) -> None:
    upstream.play = answering(vendor.whole(HELLO))
    provider = {"provider": Provider.ANTHROPIC, "target_model": "claude-1"}
    claude.target(SLUG, "sk-ant-1", {"max_output_tokens": 4000}, **provider)
    async with claude.client() as client:
        for bound in ({}, {"max_tokens": 5000}):
            assert (await client.post(PATH, json=ASKED | bound)).status_code == 200
    assert [json.loads(received.body)["max_tokens"] for received in upstream.received] == [4000, 5000]


@pytest.mark.parametrize("asks", [False, True])
async def test_a_stream(claude: Gate, upstream: TcpUpstream, asks: bool) -> None:
    upstream.play = streaming(*vendor.events(vendor.BLOCKS, "tool_use"))
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if asks else {}
    async with claude.sdk() as sdk:
        stream = await sdk.chat.completions.create(**ASKED, stream=True, **more)
        chunks = [chunk async for chunk in stream]
    assert {chunk.model for chunk in chunks} == {SLUG}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == 'Hello, wörld "1"'
    assert [chunk.usage is not None for chunk in chunks if not chunk.choices] == [True] * asks
    event = await claude.event()
    assert (event.outcome, event.tokens, event.stream) == (Outcome.COMPLETE, COUNTED, True)
    assert json.loads(upstream.received[0].body)["stream"] is True


async def test_what_cannot_be_expressed_reaches_nobody(claude: Gate, upstream: TcpUpstream) -> None:
    async with claude.client() as client:
        for large in ("", "x" * 300_000):  # which is translated beside the loop
            answer = await client.post(PATH, json=ASKED | {"logprobs": True, "user": large})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "logprobs")
            assert answer.headers["x-request-id"]
    assert not upstream.received
    assert not claude.events


@pytest.mark.parametrize(
    ("status", "kind", "becomes"),
    [(529, "overloaded_error", 503), (401, "authentication_error", 502), (402, "billing_error", 502)],
)
async def test_an_error_is_the_clients_in_openais_shape(
    claude: Gate, upstream: TcpUpstream, status: int, kind: str, becomes: int
) -> None:
    upstream.play = answering({"type": "error", "error": {"type": kind, "message": "No."}}, status)
    async with claude.sdk() as sdk:
        with pytest.raises(openai.InternalServerError) as error:
            await sdk.chat.completions.create(**ASKED)
    assert error.value.status_code == becomes
    assert not claude.events


async def test_an_error_in_a_stream_is_told_and_what_was_read_is_billed(claude: Gate, upstream: TcpUpstream) -> None:
    said = [vendor.opened(0, {"type": "text", "text": ""}), vendor.added(0, "text_delta", text="x" * 400)]
    told = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    upstream.play = streaming(vendor.start(input_tokens=500), *said, told)
    async with claude.client() as client:
        answer = await client.post(PATH, json=ASKED | {"stream": True})
    assert "[DONE]" not in answer.text
    assert answer.text.count('"error"') == 1
    assert "Overloaded" in answer.text
    event = await claude.event()
    assert (event.outcome, event.tokens) == (Outcome.UPSTREAM_ERROR, Tokens(input_tokens=500, output_tokens=100))


@pytest.mark.parametrize("whole", [True, False], ids=["a clean end", "a broken connection"])
async def test_a_stream_that_is_cut_off_is_told_and_billed(claude: Gate, upstream: TcpUpstream, whole: bool) -> None:
    said = [vendor.opened(0, {"type": "text", "text": ""}), vendor.added(0, "text_delta", text="x" * 400)]
    upstream.play = streaming(vendor.start(input_tokens=500), *said, whole=whole)
    async with claude.client() as client:
        answer = await client.post(PATH, json=ASKED | {"stream": True})
    assert "[DONE]" not in answer.text
    assert answer.text.count('"error"') == 1
    event = await claude.event()
    assert (event.outcome, event.tokens) == (Outcome.UPSTREAM_ERROR, Tokens(input_tokens=500, output_tokens=100))


async def test_an_answer_that_is_none_of_the_api_is_a_502(claude: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering({"object": "chat.completion"})
    async with claude.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")


async def test_a_redirect_is_not_followed(claude: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering({}, 307)
    async with claude.client() as client:
        answer = await client.post(PATH, json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_redirect")
    assert len(upstream.received) == 1
