"""Translates answers of the Messages API into chat completions: whole ones, their ends, and errors.

What it does not know (a new block, a new reason to stop) is passed over, as the API's versioning asks of its clients
(https://platform.claude.com/docs/en/api/versioning).
"""

from typing import Any, NamedTuple

import msgspec

from proxy.dialects import json_text
from proxy.dialects.anthropic import usage

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "compaction": "length",
    "pause_turn": "length",
    "refusal": "content_filter",
}
_OVERLOADED = 529
_CREDENTIAL = (401, 402, 403)
"""The lab's own trouble with its provider, not its customer's."""
_KINDS = {429: "rate_limit_error", _OVERLOADED: "server_error"}
_CODES = {429: "rate_limit_exceeded", _OVERLOADED: "overloaded"}
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": _OVERLOADED,
}
"""What an error that comes in a stream would have been (https://platform.claude.com/docs/en/api/errors)."""


class UnreadableAnswerError(Exception):
    """An answer is not one of the Messages API."""


class Error(NamedTuple):
    """An error as a client of chat completions gets it."""

    status: int
    body: bytes


def finish_reason(stop_reason: Any) -> str:
    """Return a chat completion's `finish_reason`; one that is not known ends an answer like any other."""
    return _FINISH_REASONS.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"


def explanation(stop_details: Any) -> str | None:
    """Return why the model refused, where it says so."""
    found = stop_details.get("explanation") if isinstance(stop_details, dict) else None
    return found if isinstance(found, str) else None


def called(block: dict[str, Any], arguments: str) -> dict[str, Any]:
    """Return a `tool_use` block as a chat completion's tool call."""
    return {
        "id": block.get("id"),
        "type": "function",
        "function": {"name": block.get("name"), "arguments": arguments},
    }


def as_text(value: Any) -> str:
    """Return a value as compact JSON."""
    return msgspec.json.encode(value).decode()


def plain(body: bytes, *, created: int) -> bytes:
    """Return a whole answer as a chat completion; `created` is in Unix seconds. Raise UnreadableError."""
    try:
        message = json_text.loads(body)
    except json_text.UnreadableTextError:
        raise UnreadableAnswerError from None
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        raise UnreadableAnswerError
    stop = message.get("stop_reason")
    refused = explanation(message.get("stop_details")) if stop == "refusal" else None
    completion = {
        "id": message.get("id"),
        "object": "chat.completion",
        "created": created,
        "model": message.get("model"),
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": None, "refusal": refused} | _said(message["content"]),
                "logprobs": None,
                "finish_reason": finish_reason(stop),
            }
        ],
    }
    counted = usage.as_chat(message["usage"]) if isinstance(message.get("usage"), dict) else None
    return msgspec.json.encode(completion | ({"usage": counted} if counted is not None else {}))


def _said(blocks: list[Any]) -> dict[str, Any]:
    known = [block for block in blocks if isinstance(block, dict)]
    texts = _texts(known, "text")
    thoughts = [block for block in known if block.get("type") in ("thinking", "redacted_thinking")]
    reasoning = "".join(_texts(known, "thinking"))
    calls = [called(block, as_text(block.get("input") or {})) for block in known if block.get("type") == "tool_use"]
    said: dict[str, Any] = {"content": "".join(texts)} if texts else {}
    said |= {"reasoning_content": reasoning} if reasoning else {}
    said |= {"thinking_blocks": thoughts} if thoughts else {}
    return said | ({"tool_calls": calls} if calls else {})


def _texts(blocks: list[dict[str, Any]], kind: str) -> list[str]:
    return [block[kind] for block in blocks if block.get("type") == kind and isinstance(block.get(kind), str)]


def error(status: int, body: bytes) -> Error:
    """Return an answer that is no success in OpenAI's shape, with the status that it gets there."""
    try:
        told = json_text.loads(body)
    except json_text.UnreadableTextError:
        told = None
    return _error(status, told)


def streamed_error(event: dict[str, Any]) -> Error:
    """Return an `error` event of a stream as `error` does an answer."""
    told = event.get("error")
    kind = told.get("type") if isinstance(told, dict) else None
    return _error(_STATUSES.get(kind, 500) if isinstance(kind, str) else 500, event)


def error_status(status: int) -> int:
    """Return the status with which a client of chat completions gets one that is no success."""
    if status in _CREDENTIAL:
        return 502
    return 503 if status == _OVERLOADED else status


def _error(status: int, told: Any) -> Error:
    if status in _CREDENTIAL:
        return _shaped(status, "The model's server refused the gateway.", "server_error", "upstream_credential")
    inner = told.get("error") if isinstance(told, dict) else None
    said = inner.get("message") if isinstance(inner, dict) else None
    message = said if isinstance(said, str) and said else f"The model's server answered with status {status}."
    kind = _KINDS.get(status) or ("invalid_request_error" if 400 <= status < 500 else "server_error")
    return _shaped(status, message, kind, _CODES.get(status))


def _shaped(status: int, message: str, kind: str, code: str | None) -> Error:
    told = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return Error(error_status(status), msgspec.json.encode(told))
