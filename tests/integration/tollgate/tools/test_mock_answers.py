"""The answers of the mock upstream, taken over TCP by the OpenAI SDK and by hand."""

import json
import os
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionMessageFunctionToolCall, ChatCompletionToolParam

from tollgate.tools import mock_upstream
from tollgate.tools.mock_upstream import Options, Running

MESSAGE = {"role": "user", "content": "sixteen bytes..."}
BODY = {"model": "m", "messages": [MESSAGE]}


@pytest.fixture
async def upstream() -> AsyncIterator[Running]:
    async with mock_upstream.running(Options(tokens=5, cached_tokens=3)) as running:
        yield running


@pytest.fixture
async def client(upstream: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=upstream.url, timeout=10, trust_env=False) as client:
        yield client


@pytest.fixture
async def sdk(upstream: Running) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=upstream.url, api_key="any", max_retries=0) as sdk:
        yield sdk


def events(stream: str) -> list[dict[str, object]]:
    lines = stream.removesuffix("\n\n").split("\n\n")
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


async def test_counts_follow_the_stated_rule(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "sixteen bytes..!"}], n=2
    )
    assert answer.model == "m"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (4, 10, 14)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 3
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "stop"]
    assert answer.choices[0].message.content == "tok tok tok tok tok"


async def test_input_is_counted_in_utf8_bytes_of_every_text(client: httpx.AsyncClient) -> None:
    parts = [{"type": "text", "text": "ééé"}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    body = {"model": "m", "messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": None}]}
    answer = await client.post("/chat/completions", json=body)
    assert answer.json()["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_less_output_where_the_request_asks_for_less(client: httpx.AsyncClient, name: str) -> None:
    answer = (await client.post("/chat/completions", json=BODY | {name: 2})).json()
    assert answer["usage"]["completion_tokens"] == 2
    assert answer["choices"][0]["message"]["content"] == "tok tok"
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_a_stream_adds_up_to_the_plain_answer(sdk: openai.AsyncOpenAI) -> None:
    chunks = [
        chunk
        async for chunk in await sdk.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    ]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "tok tok tok tok tok"
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (1, 5)


async def test_no_usage_in_a_stream_that_did_not_ask(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat/completions", json=BODY | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert len(events(answer.text)) == 1 + 5 + 1
    assert all("usage" not in event for event in events(answer.text))


async def test_every_choice_of_a_stream_is_whole(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat/completions", json=BODY | {"stream": True, "n": 3})
    texts = ["", "", ""]
    for event in events(answer.text):
        for choice in event["choices"]:  # type: ignore[attr-defined]
            texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == ["tok tok tok tok tok"] * 3


WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
            "required": ["city", "days"],
        },
    },
}


async def test_calls_the_first_tool_with_valid_arguments(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], tools=[WEATHER])
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    (call,) = calls
    assert isinstance(call, ChatCompletionMessageFunctionToolCall)
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "mock", "days": 2}


async def test_a_streamed_tool_call_adds_up(client: httpx.AsyncClient) -> None:
    answer = await client.post("/chat/completions", json=BODY | {"stream": True, "tools": [WEATHER]})
    calls = [
        call
        for event in events(answer.text)
        for choice in event["choices"]  # type: ignore[attr-defined]
        for call in choice["delta"].get("tool_calls", ())
    ]
    assert calls[0]["function"]["name"] == "weather"
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == {"city": "mock", "days": 2}


@pytest.mark.parametrize(
    "change",
    [
        {"tool_choice": "none"},
        {"messages": [MESSAGE, {"role": "tool", "tool_call_id": "call_0", "content": "21"}]},
    ],
)
async def test_text_where_no_tool_is_to_be_called(client: httpx.AsyncClient, change: dict[str, object]) -> None:
    answer = (await client.post("/chat/completions", json=BODY | {"tools": [WEATHER]} | change)).json()
    assert answer["choices"][0]["message"]["content"].startswith("tok")


async def test_json_content_is_valid_for_its_schema(client: httpx.AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {
            "kind": {"enum": ["a", "b"]},
            "when": {"type": "string", "format": "date"},
            "items": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/price"}},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "left_out": {"type": "string"},
        },
        "required": ["kind", "when", "items", "maybe"],
        "$defs": {"price": {"type": "number", "maximum": -1}},
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = (await client.post("/chat/completions", json=BODY | {"response_format": wanted})).json()
    content = json.loads(answer["choices"][0]["message"]["content"])
    assert content == {"kind": "a", "when": "2026-01-01", "items": [-1, -1], "maybe": None}
    answer = (await client.post("/chat/completions", json=BODY | {"response_format": {"type": "json_object"}})).json()
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"]), dict)


async def test_a_schema_that_never_ends_is_answered(client: httpx.AsyncClient) -> None:
    schema = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    answer = await client.post("/chat/completions", json=BODY | {"response_format": wanted})
    assert answer.status_code == 200


async def test_no_usage_means_none_anywhere() -> None:
    async with mock_upstream.running(Options(usage=False)) as upstream, httpx.AsyncClient(trust_env=False) as client:
        url = f"{upstream.url}/chat/completions"
        assert "usage" not in (await client.post(url, json=BODY)).json()
        body = BODY | {"stream": True, "stream_options": {"include_usage": True}}
        assert "usage" not in (await client.post(url, json=body)).text


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/chat/completions", b"{", 400),
        ("POST", "/chat/completions", b'{"model":"m"}', 400),
        ("POST", "/chat/completions", b'{"model":"m","messages":[],"max_tokens":0}', 400),
        ("POST", "/chat/completions", b'\xff{"model":"m","messages":[]}', 400),
        ("GET", "/chat/completions", b"", 405),
        ("GET", "/nothing", b"", 404),
        ("POST", "/models", b"", 404),
    ],
)
async def test_refuses_with_a_message(
    client: httpx.AsyncClient, method: str, path: str, body: bytes, status: int
) -> None:
    answer = await client.request(method, path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


async def test_lists_its_model(sdk: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == ["mock-model"]


async def test_takes_a_large_body(client: httpx.AsyncClient) -> None:
    text = os.urandom(1024 * 1024).hex()
    answer = await client.post(
        "/chat/completions", json={"model": "m", "messages": [{"role": "user", "content": text}]}
    )
    assert answer.json()["usage"]["prompt_tokens"] == len(text) // 4
