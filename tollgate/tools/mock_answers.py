"""Decides what the mock upstream answers to a chat completion: text, tool call or JSON, with its token counts.

The same request always costs the same.

The rule of the counts, for whoever compares them with a bill:

- input: the UTF-8 bytes of all message contents (of a list of parts, its text parts), divided by 4, rounded up,
  at least 1;
- output: `tokens` of the options, or the request's `max_completion_tokens` or `max_tokens` where that is less,
  times `n`; also for tool calls and JSON, whatever their length;
- cached: `cached_tokens` of the options, at most the input.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

MAX_DEPTH = 32
"""How deep an example follows a schema; a required field that contains itself would never end."""

_STRING_FORMATS = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "time": "00:00:00Z",
    "email": "mock@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}

Count = Annotated[int, msgspec.Meta(ge=1)]


class BadRequestError(Exception):
    """The body is no chat completion request; the message says why."""


class _Part(msgspec.Struct):
    type: str = "text"
    text: str = ""


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[_Part] | None = None


class _Function(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    function: _Function


class _Choice(msgspec.Struct):
    function: _Function


class _JsonSchema(msgspec.Struct):
    schema: Any = None


class _ResponseFormat(msgspec.Struct):
    type: str
    json_schema: _JsonSchema | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = False


class MockRequest(msgspec.Struct):
    """What of a chat completion request changes its answer; everything else is read over."""

    model: str
    messages: list[_Message]
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    tools: list[_Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Choice | None = None
    response_format: _ResponseFormat | None = None


class MockAnswer(NamedTuple):
    """One answer, by value, so that equal ones are rendered once."""

    model: str
    n: int
    text: str
    """The content, or a tool call's arguments."""
    tool: str | None
    finish: str
    input_tokens: int
    output_tokens: int
    """Over all `n` choices."""
    cached_tokens: int
    usage: bool
    """Whether the counts are told."""


class MockStream(NamedTuple):
    """A streamed answer's events, each without its beginning (`beginning`)."""

    head: tuple[bytes, ...]
    pieces: tuple[bytes, ...]
    tail: tuple[bytes, ...]


_decoder = msgspec.json.Decoder(MockRequest)


def parse(body: bytes) -> MockRequest:
    """Read a request's body. Raise BadRequestError."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequestError(str(error)) from None


def decide(request: MockRequest, tokens: int, cached_tokens: int = 0, usage: bool = True) -> MockAnswer:
    """Return the answer to `request` where a choice has at most `tokens` output tokens."""
    each = min(tokens, request.max_completion_tokens or request.max_tokens or tokens)
    n = request.n or 1
    prompt = sum([_content_bytes(message.content) for message in request.messages])
    input_tokens = max(1, -(-prompt // 4))
    tool = _tool_called(request)
    if tool is not None:
        text, finish = json.dumps(example(tool.parameters or {"type": "object"})), "tool_calls"
    elif request.response_format is not None and request.response_format.type != "text":
        text, finish = json.dumps(_json_content(request.response_format)), "stop"
    else:
        text, finish = _words(each), "length" if each < tokens else "stop"
    # `stream_options` has no meaning without `stream`; a plain answer always tells its counts.
    told = usage and (not request.stream or bool(request.stream_options and request.stream_options.include_usage))
    name = None if tool is None else tool.name
    cached = min(cached_tokens, input_tokens)
    return MockAnswer(request.model, n, text, name, finish, input_tokens, each * n, cached, told)


def beginning(serial: int, created_s: int) -> bytes:
    """Return what every answer and every event starts with; the rest follows directly."""
    return b'{"id":"chatcmpl-%d","created":%d' % (serial, created_s)


@lru_cache(maxsize=512)
def plain(answer: MockAnswer) -> bytes:
    """Render a plain answer, without its beginning."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool is not None:
        call = {"id": "call_0", "type": "function", "function": {"name": answer.tool, "arguments": answer.text}}
        message |= {"content": None, "tool_calls": [call]}
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": answer.finish}
        for index in range(answer.n)
    ]
    rest: dict[str, Any] = {"object": "chat.completion", "model": answer.model, "choices": choices}
    return _continued(rest | ({"usage": _usage(answer)} if answer.usage else {}))


@lru_cache(maxsize=64)
def stream(answer: MockAnswer) -> MockStream:
    """Render a streamed answer: a role, then the content piece by piece, then finish and counts."""
    opening: dict[str, Any] = {"role": "assistant", "content": ""}
    if answer.tool is not None:
        call = {"index": 0, "id": "call_0", "type": "function", "function": {"name": answer.tool, "arguments": ""}}
        opening = {"role": "assistant", "content": None, "tool_calls": [call]}
    parts = _cut(answer.text, answer.output_tokens // answer.n)
    tail = [_event(answer, [_choice(index, {}, answer.finish)]) for index in range(answer.n)]
    if answer.usage:
        tail.append(_event(answer, [], usage=_usage(answer)))
    return MockStream(
        head=tuple(_event(answer, [_choice(index, opening)]) for index in range(answer.n)),
        pieces=tuple(
            _event(answer, [_choice(index, _delta(answer, part))]) for part in parts for index in range(answer.n)
        ),
        tail=tuple(tail),
    )


def example(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """Return a value that is valid for a simple JSON Schema; what a schema does not say is left out."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return None
    if "$ref" in schema:
        return example(_resolve(root, schema["$ref"]), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    for name in ("enum", "anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return schema[name][0] if name == "enum" else example(schema[name][0], root, depth + 1)
    return _typed_example(schema, root, depth)


def _typed_example(schema: Mapping[str, Any], root: Any, depth: int) -> Any:
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: example(properties.get(name, {}), root, depth + 1) for name in schema.get("required", ())}
        case "array":
            return [example(schema.get("items", {}), root, depth + 1)] * schema.get("minItems", 0)
        case "string":
            text = _STRING_FORMATS.get(schema.get("format", ""), "mock")
            return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength", None)]
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
    return None


def _number(schema: Mapping[str, Any]) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", 1) - 1)
    return low if low > 0 else min(high, 0)


def _resolve(root: Any, reference: str) -> Any:
    for step in reference.lstrip("#/").split("/"):
        root = root.get(step, {}) if step and isinstance(root, Mapping) else root
    return root


def _content_bytes(content: str | list[_Part] | None) -> int:
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode())
    return sum(len(part.text.encode()) for part in content or ())


def _tool_called(request: MockRequest) -> _Function | None:
    """Return the tool to call: none once its result is there, or a client that loops would loop for ever."""
    if not request.tools or request.tool_choice == "none":
        return None
    if request.messages and request.messages[-1].role == "tool":
        return None
    if isinstance(request.tool_choice, _Choice):
        named = request.tool_choice.function.name
        return next((tool.function for tool in request.tools if tool.function.name == named), None)
    return request.tools[0].function


def _json_content(wanted: _ResponseFormat) -> Any:
    if wanted.json_schema is not None and wanted.json_schema.schema is not None:
        return example(wanted.json_schema.schema)
    return {"answer": "mock"}


@lru_cache(maxsize=512)
def _words(tokens: int) -> str:
    return " ".join(["tok"] * tokens)


def _cut(text: str, pieces: int) -> Sequence[str]:
    """Cut into at most `pieces` parts of one length; a text of `_words` falls into its words."""
    size = max(1, -(-(len(text) + 1) // pieces))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _choice(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _delta(answer: MockAnswer, part: str) -> dict[str, Any]:
    if answer.tool is None:
        return {"content": part}
    return {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}


def _event(answer: MockAnswer, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
    rest: dict[str, Any] = {"object": "chat.completion.chunk", "model": answer.model, "choices": choices}
    if answer.usage:
        rest["usage"] = usage  # null in every chunk but the last, as the providers do
    return _continued(rest) + b"\n\n"


def _usage(answer: MockAnswer) -> dict[str, Any]:
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens},
    }


def _continued(rest: dict[str, Any]) -> bytes:
    return b"," + msgspec.json.encode(rest)[1:]
