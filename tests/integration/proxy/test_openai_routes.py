"""Completions, embeddings and responses over TCP, as OpenAI's SDK calls them: sent, answered, billed (contract 3.3)."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from schemas.targets import Provider
from schemas.usage import Outcome, Tokens, UsageSource
from tests.integration.proxy.gate import ASKED, Gate
from tests.integration.proxy.tcp import Line, Play, Received, TcpUpstream
from tests.unit.proxy.dialects.routes import responses_events
from tests.unit.proxy.dialects.routes.responses_events import created, delta, last
from tests.unit.proxy.kit import SLUG

TEXTS = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "their-model",
    "choices": [{"index": 0, "text": " world", "finish_reason": "stop", "logprobs": None}],
    "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3},
}
VECTORS = {
    "object": "list",
    "model": "their-model",
    "data": [{"object": "embedding", "index": 0, "embedding": "AACAPwAAAEA="}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
COUNTED = Tokens(input_tokens=9, output_tokens=6, cached_input_tokens=4)


def answering(told: Any, status: int = 200) -> Play:
    async def play(_received: Received, line: Line) -> None:
        await line.answer(json.dumps(told).encode(), status)

    return play


def streaming(*events: bytes, whole: bool = True) -> Play:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        for event in events:
            await line.chunk(event)
        if whole:
            await line.end_stream()
        else:
            line.break_off()

    return play


async def test_a_completion(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering(TEXTS)
    async with running.sdk() as sdk:
        answer = await sdk.completions.create(
            model=SLUG, prompt="Hello", max_tokens=5, extra_body={"metadata": {"a": "b"}}
        )
    assert (answer.model, answer.choices[0].text) == (SLUG, " world")
    (received,) = upstream.received
    assert received.line == "POST /v1/completions HTTP/1.1"
    assert json.loads(received.body) == {
        "model": "their-model",
        "prompt": "Hello",
        "max_tokens": 5,
        "metadata": {"a": "b"},
    }
    event = await running.event()
    assert (event.route, event.outcome, event.usage_source) == ("completions", Outcome.COMPLETE, UsageSource.PROVIDER)
    assert (event.tokens, event.request_metadata) == (Tokens(input_tokens=2, output_tokens=1), {"a": "b"})


async def test_a_streamed_completion_asks_for_its_counts_and_hides_them(running: Gate, upstream: TcpUpstream) -> None:
    chunk = {"id": "c", "object": "text_completion", "created": 1, "model": "their-model"}
    pieces: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "text": " wor", "finish_reason": None}]},
        {"choices": [{"index": 0, "text": "ld", "finish_reason": "stop"}]},
        {"choices": [], "usage": TEXTS["usage"]},
    ]
    wire = [b"data: " + json.dumps(chunk | piece).encode() + b"\n\n" for piece in pieces]
    upstream.play = streaming(*wire, b"data: [DONE]\n\n")
    async with running.sdk() as sdk:
        chunks = [each async for each in await sdk.completions.create(model=SLUG, prompt="Hello", stream=True)]
    assert "".join(each.choices[0].text for each in chunks) == " world"
    assert {each.model for each in chunks} == {SLUG}
    assert json.loads(upstream.received[0].body)["stream_options"] == {"include_usage": True}
    event = await running.event()
    assert (event.route, event.stream, event.tokens) == ("completions", True, Tokens(input_tokens=2, output_tokens=1))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_echoed_is_not_what_the_model_wrote(
    running: Gate, upstream: TcpUpstream, stream: bool
) -> None:
    common: dict[str, Any] = {"id": "c", "object": "text_completion", "created": 1, "model": "their-model"}
    texts = ["x" * 400, " wor", "ld"] if stream else ["x" * 400 + " world"]
    pieces = [common | {"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in texts]
    pieces[-1]["choices"][0]["finish_reason"] = "stop"
    wire = [b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces]
    upstream.play = streaming(*wire, b"data: [DONE]\n\n") if stream else answering(pieces[0])
    async with running.client() as client:
        asked = {"model": SLUG, "prompt": "x" * 400, "echo": True, "stream": stream}
        assert (await client.post("/v1/completions", json=asked)).status_code == 200
    event = await running.event()
    assert (event.usage_source, event.tokens) == (UsageSource.ESTIMATED, Tokens(input_tokens=100, output_tokens=2))


async def test_counts_in_each_chunk_pass_to_who_asked_and_the_last_are_billed(
    running: Gate, upstream: TcpUpstream
) -> None:
    common = {"id": "c", "object": "text_completion", "created": 1, "model": "their-model"}
    counts = [{"prompt_tokens": 2, "completion_tokens": number, "total_tokens": 2 + number} for number in (1, 2)]
    pieces = [
        common | {"choices": [{"index": 0, "text": "x", "finish_reason": end}], "usage": each}
        for end, each in zip((None, "stop"), counts, strict=True)
    ]
    wire = [
        b"data: " + json.dumps(piece).encode() + b"\n\n"
        for piece in (*pieces, common | {"choices": [], "usage": counts[-1]})
    ]
    upstream.play = streaming(*wire, b"data: [DONE]\n\n")
    options: Any = {"continuous_usage_stats": True}
    async with running.sdk() as sdk:
        asked = sdk.completions.create(model=SLUG, prompt="Hello", stream=True, stream_options=options)
        chunks = [each async for each in await asked]
    assert [each.usage and each.usage.total_tokens for each in chunks] == [3, 4]
    assert json.loads(upstream.received[0].body)["stream_options"] == options | {"include_usage": True}
    assert (await running.event()).tokens == Tokens(input_tokens=2, output_tokens=2)


async def test_embeddings_pass_byte_for_byte_and_have_no_output(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering(VECTORS)
    async with running.sdk() as sdk:
        answer = await sdk.embeddings.create(model=SLUG, input=["Hello", "you"])
    assert (answer.model, answer.data[0].embedding) == (SLUG, [1.0, 2.0])
    (received,) = upstream.received
    assert received.line == "POST /v1/embeddings HTTP/1.1"
    assert json.loads(received.body)["encoding_format"] == "base64"  # what the SDK asks for is asked for
    event = await running.event()
    assert (event.route, event.tokens) == ("embeddings", Tokens(input_tokens=8, output_tokens=0))
    assert event.usage_source is UsageSource.PROVIDER


async def test_embeddings_that_nobody_counted_are_estimated(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering({name: value for name, value in VECTORS.items() if name != "usage"})
    async with running.sdk() as sdk:
        await sdk.embeddings.create(model=SLUG, input=[[1, 2, 3], [4, 5]])
    event = await running.event()
    assert (event.tokens, event.usage_source) == (Tokens(input_tokens=5, output_tokens=0), UsageSource.ESTIMATED)


async def test_a_response(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = answering(responses_events.response())
    async with running.sdk() as sdk:
        answer = await sdk.responses.create(model=SLUG, input="Hi", max_output_tokens=40)
    assert (answer.model, answer.output_text) == (SLUG, "Hello")
    (received,) = upstream.received
    assert received.line == "POST /v1/responses HTTP/1.1"
    assert json.loads(received.body) == {"model": "their-model", "input": "Hi", "max_output_tokens": 40}
    event = await running.event()
    assert (event.route, event.outcome, event.tokens) == ("responses", Outcome.COMPLETE, COUNTED)


async def test_a_streamed_response(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = streaming(created(), delta("Hel"), delta("lo", 2), last(number=3))
    async with running.sdk() as sdk:
        events = [each async for each in await sdk.responses.create(model=SLUG, input="Hi", stream=True)]
    assert [each.type for each in events] == [
        "response.created",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.completed",
    ]
    finished = events[-1]
    assert finished.type == "response.completed"
    assert (finished.response.model, finished.response.output_text) == (SLUG, "Hello")
    assert json.loads(upstream.received[0].body) == {"model": "their-model", "input": "Hi", "stream": True}
    event = await running.event()
    assert (event.route, event.stream, event.outcome, event.tokens) == ("responses", True, Outcome.COMPLETE, COUNTED)


@pytest.mark.parametrize("whole", [True, False], ids=["a clean end", "a broken connection"])
async def test_a_response_that_is_cut_off_ends_with_this_apis_error(
    running: Gate, upstream: TcpUpstream, whole: bool
) -> None:
    upstream.play = streaming(created(), delta("x" * 400), whole=whole)
    async with running.sdk() as sdk:
        events = [each async for each in await sdk.responses.create(model=SLUG, input="Hi", stream=True)]
    assert [each.type for each in events] == ["response.created", "response.output_text.delta", "error"]
    told = events[-1]
    assert told.type == "error"
    assert (told.code, "broke off" in told.message) == ("upstream_error", True)
    event = await running.event()
    assert (event.outcome, event.tokens) == (Outcome.UPSTREAM_ERROR, Tokens(input_tokens=5, output_tokens=100))


async def test_a_response_that_failed_reaches_its_client_once(running: Gate, upstream: TcpUpstream) -> None:
    upstream.play = streaming(created(), last("failed", error={"code": "server_error", "message": "No."}))
    async with running.client() as client:
        answer = await client.post("/v1/responses", json={"model": SLUG, "input": "Hi", "stream": True})
    assert answer.text.count("event: ") == 2
    assert answer.text.count("event: response.failed") == 1
    event = await running.event()
    assert (event.outcome, event.tokens) == (Outcome.UPSTREAM_ERROR, COUNTED)


async def test_nothing_is_stored_here(running: Gate, upstream: TcpUpstream) -> None:
    async with running.client() as client:
        refused = await client.post("/v1/responses", json={"model": SLUG, "input": "Hi", "background": True})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "background")
        for method, path in (("GET", "resp_1"), ("DELETE", "resp_1"), ("POST", "resp_1/cancel")):
            assert (await client.request(method, f"/v1/responses/{path}")).status_code == 404
    assert not upstream.received


@pytest.mark.parametrize("path", ["completions", "embeddings", "responses"])
async def test_who_does_not_speak_it_is_not_found(
    open_gate: Callable[..., Any], upstream: TcpUpstream, path: str
) -> None:
    gate: Gate = await open_gate(anthropic_base_url=f"http://127.0.0.1:{upstream.port}")
    gate.target(SLUG, "sk-ant-1", provider=Provider.ANTHROPIC, target_model="claude-1")
    async with gate.client() as client:
        answer = await client.post(f"/v1/{path}", json={"model": SLUG, "input": "Hi", "prompt": "Hi"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert (await client.get(f"/v1/{path}")).status_code == 405
    assert not upstream.received


async def test_chat_completions_and_the_others_have_one_slug_and_one_name_each(
    running: Gate, upstream: TcpUpstream
) -> None:
    async with running.client() as client:
        for path, body in (("chat/completions", ASKED), ("embeddings", {"model": SLUG, "input": "Hi"})) * 2:
            assert (await client.post(f"/v1/{path}", json=body)).status_code == 200
    assert [event.route for event in running.events] == ["chat.completions", "embeddings"] * 2
    assert [received.line.split()[1] for received in upstream.received] == [
        "/v1/chat/completions",
        "/v1/embeddings",
    ] * 2
