"""Answers as Anthropic's API gives them, whole and as a stream of events."""

import json
from typing import Any

USAGE = {
    "input_tokens": 10,
    "cache_creation_input_tokens": 20,
    "cache_read_input_tokens": 30,
    "output_tokens": 7,
    "output_tokens_details": {"thinking_tokens": 3},
    "service_tier": "standard",
}
CHAT_USAGE = {
    "prompt_tokens": 60,
    "completion_tokens": 7,
    "total_tokens": 67,
    "prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 20},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
BLOCKS: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "Let me see.", "signature": "c2ln"},
    {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    {"type": "text", "text": "Hello, "},
    {"type": "text", "text": 'wörld "1"'},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": [1, None], "b": "é"}},
    {"type": "tool_use", "id": "toolu_2", "name": "rest", "input": {}},
]


def whole(blocks: list[dict[str, Any]], stop: str | None = "end_turn", **more: Any) -> dict[str, Any]:
    """Return an answer that is not streamed."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-1",
        "content": blocks,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": USAGE,
    } | more


def start(**usage: Any) -> dict[str, Any]:
    """Return the first event of a stream."""
    return {"type": "message_start", "message": whole([], None, usage={"input_tokens": 10, "output_tokens": 1} | usage)}


def delta(stop: str | None = "end_turn", usage: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return the event that says why the model stopped."""
    said = {"stop_reason": stop, "stop_sequence": None} | more
    return {"type": "message_delta", "delta": said, "usage": {"output_tokens": 7} if usage is None else usage}


STOP = {"type": "message_stop"}


def opened(index: int, block: dict[str, Any]) -> dict[str, Any]:
    """Return the event with which a block begins."""
    return {"type": "content_block_start", "index": index, "content_block": block}


def added(index: int, kind: str, **more: Any) -> dict[str, Any]:
    """Return an event that adds to a block."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **more}}


def closed(index: int) -> dict[str, Any]:
    """Return the event with which a block ends."""
    return {"type": "content_block_stop", "index": index}


def pieces(index: int, block: dict[str, Any], size: int) -> list[dict[str, Any]]:
    """Return the events of a block, whose text comes in pieces of `size`."""
    kind = block["type"]
    if kind == "tool_use":
        text = json.dumps(block["input"]) if block["input"] else ""
        empty, member, name = block | {"input": {}}, "partial_json", "input_json_delta"
    elif kind == "thinking":
        text, empty, member, name = block["thinking"], block | {"thinking": "", "signature": ""}, kind, "thinking_delta"
    elif kind == "text":
        text, empty, member, name = block["text"], block | {"text": ""}, kind, "text_delta"
    else:
        text, empty, member, name = "", block, "", ""
    found = [opened(index, empty)]
    found += [added(index, name, **{member: text[at : at + size]}) for at in range(0, len(text), size)]
    if kind == "thinking":
        found.append(added(index, "signature_delta", signature=block["signature"]))
    return [*found, closed(index)]


def events(blocks: list[dict[str, Any]], stop: str = "end_turn", size: int = 4) -> list[dict[str, Any]]:
    """Return the events of a whole stream, with the counts of `USAGE`."""
    first = start(cache_creation_input_tokens=20, cache_read_input_tokens=30, service_tier="standard")
    counts = {"output_tokens": 7, "output_tokens_details": {"thinking_tokens": 3}}
    inner = [event for index, block in enumerate(blocks) for event in pieces(index, block, size)]
    return [first, {"type": "ping"}, *inner, delta(stop, counts), STOP]


def wire(told: list[dict[str, Any]], end: str = "\n") -> bytes:
    """Return events as they come."""
    lines = [f"event: {event['type']}{end}data: {json.dumps(event, ensure_ascii=False)}{end}{end}" for event in told]
    return "".join(lines).encode()
