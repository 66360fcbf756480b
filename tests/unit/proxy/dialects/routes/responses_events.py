"""Streams of the Responses API, as its server writes them."""

import json
from typing import Any

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 6,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 15,
}
OUTPUT = [
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Hello", "annotations": []}],
    }
]


def response(status: str = "completed", **changes: Any) -> dict[str, Any]:
    """Return a response object."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "their-model",
        "output": OUTPUT,
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": USAGE,
    } | changes


def event(kind: str, number: int = 0, **members: Any) -> bytes:
    """Return one event of a stream."""
    data = json.dumps({"type": kind, "sequence_number": number} | members)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def created() -> bytes:
    return event("response.created", 0, response=response("in_progress", output=[], usage=None))


def delta(text: str, number: int = 1) -> bytes:
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    return event("response.output_text.delta", number, delta=text, **place)


def last(status: str = "completed", number: int = 9, **changes: Any) -> bytes:
    return event(f"response.{status}", number, response=response(status, **changes))
