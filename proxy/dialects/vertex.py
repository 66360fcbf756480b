"""What differs in Vertex AI's chat completions from OpenAI's: errors in a list, and tool calls without `index`.

All else passes as it came, `extra_content` with its thought signatures included
(https://cloud.google.com/vertex-ai/generative-ai/docs/start/openai).
"""

import re
from typing import Any

import msgspec

from proxy.dialects import json_text

MAX_LINE_BYTES = 16 * 1024 * 1024

_LINE = re.compile(rb"[^\r\n]*[\r\n]")
_CALLS = b'"tool_calls"'


def error(status: int, body: bytes) -> bytes:
    """Return an error answer in OpenAI's shape: Vertex puts it in a list, with a number for its code."""
    try:
        told = json_text.loads(body)
    except json_text.UnreadableError:
        told = None
    if isinstance(told, list) and told:
        told = told[0]
    inner = told.get("error") if isinstance(told, dict) else None
    inner = inner if isinstance(inner, dict) else {}
    message, code = inner.get("message"), inner.get("status") or inner.get("code")
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    shaped = {
        "message": message if isinstance(message, str) else f"The model's server answered with status {status}.",
        "type": kind,
        "param": None,
        "code": None if code is None else str(code),
    }
    return msgspec.json.encode({"error": shaped})


class CallNumberer:
    """Fed a stream's bytes, gives them with the tool calls of its chunks numbered by their places.

    A line is given when its end has come; all but those with unnumbered calls are given as they came.
    """

    def __init__(self) -> None:
        self.broken = False
        """Whether a line has come that is larger than may be gathered."""
        self._partial = b""
        self._numbered = 0
        """How many calls the chunks before have had."""

    def feed(self, chunk: bytes) -> bytes:
        """Return the lines that are whole now."""
        text = self._partial + chunk
        lines = _LINE.findall(text)
        self._partial = text[sum(map(len, lines)) :]
        self.broken = len(self._partial) > MAX_LINE_BYTES
        return b"".join([self._line(line) if line.find(_CALLS) >= 0 else line for line in lines])

    def finish(self) -> bytes:
        """Return what has come behind the last line."""
        rest, self._partial = self._partial, b""
        return self._line(rest) if _CALLS in rest else rest

    def cut(self) -> bytes:
        """Return the same, of a stream that ends before it is whole."""
        return self.finish()

    def _line(self, line: bytes) -> bytes:
        name, colon, data = line.partition(b":")
        text = data.strip()
        try:
            chunk = json_text.loads(text) if name == b"data" and colon else None
        except json_text.UnreadableError:
            chunk = None
        calls = [call for call in _calls(chunk) if isinstance(call, dict)]
        if all(type(call.get("index")) is int for call in calls):
            return line
        for call in calls:
            if type(call.get("index")) is not int:
                call["index"] = self._numbered
                self._numbered += 1
        return line.replace(text, msgspec.json.encode(chunk), 1)


def _calls(chunk: Any) -> list[Any]:
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    deltas = [one.get("delta") for one in (choices if isinstance(choices, list) else ()) if isinstance(one, dict)]
    found = [delta.get("tool_calls") for delta in deltas if isinstance(delta, dict)]
    return [call for calls in found if isinstance(calls, list) for call in calls]
