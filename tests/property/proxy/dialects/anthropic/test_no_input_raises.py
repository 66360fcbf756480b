"""Whatever a client or an upstream sends is translated, refused by name, or told to be unreadable; nothing else."""

import json
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import vertex
from proxy.dialects.anthropic import answer, request
from proxy.dialects.chat import Invalid
from tests.unit.proxy.dialects.anthropic import vendor

WORDS = st.sampled_from(
    [
        "type",
        "text",
        "image_url",
        "url",
        "file",
        "file_data",
        "function",
        "name",
        "arguments",
        "id",
        "role",
        "content",
        "user",
        "assistant",
        "system",
        "tool",
        "tool_calls",
        "tool_call_id",
        "parameters",
        "properties",
        "object",
        "$ref",
        "$defs",
        "items",
        "anyOf",
        "#/$defs/type",
        "json_schema",
        "schema",
        "thinking",
        "signature",
        "tool_use",
        "input",
        "usage",
        "input_tokens",
        "output_tokens",
        "iterations",
        "compaction",
        "error",
        "message",
        "stop_details",
        "explanation",
        "index",
        "choices",
        "delta",
        "stop_reason",
        "refusal",
        "data:",
        "data:image/png;base64,",
        "data:text/plain,%zz",
        "required",
        "auto",
    ]
)
LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False) | WORDS
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)
PARTS = st.fixed_dictionaries({"type": WORDS}, optional={"text": VALUES, "image_url": VALUES, "file": VALUES})
CALLS = st.fixed_dictionaries({"id": WORDS, "function": st.fixed_dictionaries({"name": WORDS, "arguments": VALUES})})
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])
MESSAGES = st.fixed_dictionaries(
    {"role": ROLES},
    optional={
        "content": VALUES | st.lists(PARTS, max_size=2),
        "tool_calls": VALUES | st.lists(CALLS, max_size=2),
        "tool_call_id": WORDS,
        "thinking_blocks": VALUES,
    },
)
TOOLS = st.fixed_dictionaries(
    {"type": st.just("function"), "function": st.fixed_dictionaries({"name": WORDS, "parameters": VALUES})}
)
FORMATS = st.fixed_dictionaries(
    {"type": st.just("json_schema"), "json_schema": st.fixed_dictionaries({"schema": VALUES})}
)
REQUESTS = st.fixed_dictionaries(
    {"model": st.just("m"), "messages": st.lists(MESSAGES, max_size=4) | VALUES},
    optional={
        "tools": st.lists(TOOLS, max_size=2) | VALUES,
        "tool_choice": VALUES,
        "response_format": FORMATS | VALUES,
        "stop": VALUES,
        "max_tokens": VALUES,
        "temperature": VALUES,
        "reasoning_effort": VALUES,
        "thinking": VALUES,
        "user": VALUES,
        "service_tier": VALUES,
        "parallel_tool_calls": VALUES,
        "modalities": VALUES,
    },
)


@given(REQUESTS)
def test_a_request_is_translated_or_refused_by_name(asked: dict[str, Any]) -> None:
    found = request.translate(json.dumps(asked).encode(), default_max_tokens=1)
    if isinstance(found, Invalid):
        assert found.param is not None
        assert found.param.split("[")[0].split(".")[0] in asked | {"messages": None}
    else:
        assert json.loads(found)["messages"]


@given(
    VALUES
    | st.builds(lambda blocks, more: vendor.whole(blocks) | more, st.lists(VALUES), st.dictionaries(WORDS, VALUES))
)
def test_an_answer_is_translated_or_unreadable(told: Any) -> None:
    with suppress(answer.UnreadableAnswerError):
        assert json.loads(answer.plain(json.dumps(told).encode(), created=1))["choices"]


@given(VALUES | st.fixed_dictionaries({"error": VALUES}), st.sampled_from([400, 401, 429, 500, 529]))
def test_an_error_always_has_openais_shape(told: Any, status: int) -> None:
    body = json.dumps(told).encode()
    for shaped in (answer.error(status, body).body, vertex.error(status, body), vertex.error(status, body[:-1])):
        assert isinstance(json.loads(shaped)["error"]["message"], str)


@given(st.lists(st.binary(max_size=20) | VALUES.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n")))
def test_no_stream_breaks_the_numbering_of_calls(lines: list[bytes]) -> None:
    numberer = vertex.CallNumberer()
    sent = b"".join([numberer.feed(line) for line in lines]) + numberer.finish()
    assert sent.count(b"\n") == b"".join(lines).count(b"\n")
