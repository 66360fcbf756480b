"""An upstream that answers whatever route is asked for, as its server does."""

import json
from typing import Any

from tests.integration.proxy.tcp import DONE, Line, Received
from tests.unit.proxy.dialects.anthropic import vendor
from tests.unit.proxy.dialects.routes import responses_events

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
HELLO = [{"type": "text", "text": "Hello"}]


def _chat(**choice: Any) -> dict[str, Any]:
    common = {"id": "c", "created": 1, "model": "their-model"}
    return common | {"choices": [{"index": 0, "finish_reason": None} | choice]}


def _chunks() -> list[bytes]:
    told = [
        _chat(delta={"role": "assistant", "content": "Hel"}),
        _chat(delta={"content": "lo"}),
        _chat(delta={}, finish_reason="stop"),
        _chat() | {"choices": [], "usage": USAGE},
    ]
    return [b"data: %b\n\n" % json.dumps(one | {"object": "chat.completion.chunk"}).encode() for one in told] + [DONE]


def _vectors(asked: dict[str, Any]) -> dict[str, Any]:
    vector: Any = "AACAPwAAAEA=" if asked.get("encoding_format") == "base64" else [1.0, 2.0]
    return {
        "object": "list",
        "model": "their-model",
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }


def _answers(path: str, asked: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    match path:
        case "/chat/completions":
            whole = _chat(message={"role": "assistant", "content": "Hello"}, finish_reason="stop")
            return whole | {"object": "chat.completion", "usage": USAGE}, _chunks()
        case "/embeddings":
            return _vectors(asked), []
        case "/responses":
            events = [responses_events.created(), responses_events.delta("Hello"), responses_events.last()]
            return responses_events.response(), events
        case "/messages":
            return vendor.whole(HELLO), [vendor.wire(vendor.events(HELLO))]
        case _:
            raise AssertionError(path)


async def answer(received: Received, line: Line) -> None:
    """Answer any route, as a stream where one is asked for."""
    path = received.line.split(" ")[1].partition("?")[0].removeprefix("/v1")
    asked = json.loads(received.body)
    if path == "/messages/count_tokens":
        await line.answer(b'{"input_tokens": 14}')
        return
    whole, stream = _answers(path, asked)
    if not asked.get("stream"):
        await line.answer(json.dumps(whole).encode())
        return
    await line.begin_stream()
    for piece in stream:
        await line.chunk(piece)
    await line.end_stream()
