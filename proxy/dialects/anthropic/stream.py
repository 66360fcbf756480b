"""Translates a stream of the Messages API into one of chat completions.

Fed bytes, gives bytes; each event leaves as soon as it is whole. The counts and the reason to stop may come more than
once, so they leave at the end, before `[DONE]`. The usage chunk is always written: who reads the stream next takes it
out where the client did not ask for it.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from proxy.dialects import events, json_text
from proxy.dialects.anthropic import answer, usage
from proxy.dialects.anthropic.answer import UnreadableAnswerError

MOST_THINKING = 16 * 1024 * 1024
"""Characters of one stream that are kept until their blocks end: a client gets each block whole, with its signature."""
MOST_BLOCKS = 4096
"""Of one stream, that are open or are tool calls."""

_STILL_HERE = b": ping\n\n"
"""A comment: readers pass over it, and proxies between see that the stream lives."""
_THINKING = {"thinking": ("thinking", "signature"), "redacted_thinking": ("data",)}
"""Blocks whose members come in pieces, and which."""


class TranslatedStream:
    """One stream. After `feed` or `finish`, `done`, `failed` and `broken` say whether it has come to an end."""

    def __init__(self, *, created: int) -> None:
        self.done = False
        """Whether `[DONE]` has been written: the answer is whole."""
        self.failed = False
        """Whether the upstream told of an error, which has been written."""
        self.broken = False
        """Whether it is no stream of the API, or ended before it was whole; no client has been told of that."""
        self._created = created
        self._cutter = events.EventCutter()
        self._id: Any = None
        self._model: Any = None
        self._begun = False
        self._usage: dict[str, Any] = {}
        self._stop_reason: Any = None
        self._stop_details: Any = None
        self._blocks: dict[int, dict[str, Any]] = {}
        """Those that have begun and not ended, by the index that the upstream gave them."""
        self._arguments_begun: set[int] = set()
        self._calls: dict[int, int] = {}
        """The place among the tool calls of each block that is one."""
        self._thoughts: dict[tuple[int, str], list[str]] = {}
        """The text and the signature of thinking blocks that have not ended, as they came."""
        self._kept = 0

    def feed(self, chunk: bytes) -> bytes:
        """Return what a chunk comes to."""
        if self.done or self.failed or self.broken:
            return b""
        pieces: list[bytes] = []
        try:
            for data in self._cutter.feed(chunk):
                pieces += self._event(_read(data))
                if self.done or self.failed:
                    return b"".join(pieces)
        except UnreadableAnswerError:
            pieces.append(self.cut())
        return b"".join(pieces) + (self.cut() if self._cutter.too_large else b"")

    def finish(self) -> bytes:
        """Return what the clean end of a stream comes to: it is whole where the reason to stop has come."""
        if self.done or self.failed or self.broken:
            return b""
        return b"".join(self._end()) if self._stop_reason is not None else self.cut()

    def cut(self) -> bytes:
        """Return what the end of a stream comes to that was not whole: the counts so far, for who bills it."""
        if self.done or self.failed or self.broken:
            return b""
        self.broken = True
        return b"".join(self._counts_so_far())

    def _event(self, event: dict[str, Any]) -> list[bytes]:
        kind = event.get("type")
        read = self._READERS.get(kind) if isinstance(kind, str) else None
        return [_STILL_HERE] if read is None else read(self, event)

    def _message_start(self, event: dict[str, Any]) -> list[bytes]:
        message = _member(event, "message")
        self._id, self._model = message.get("id"), message.get("model")
        usage.merge(self._usage, message.get("usage"))
        return self._chunks()

    def _message_delta(self, event: dict[str, Any]) -> list[bytes]:
        usage.merge(self._usage, event.get("usage"))
        delta = _member(event, "delta")
        self._stop_reason = delta.get("stop_reason") or self._stop_reason
        self._stop_details = delta.get("stop_details") or self._stop_details
        return []

    def _error(self, event: dict[str, Any]) -> list[bytes]:
        self.failed = True
        return [*self._counts_so_far(), _data(answer.streamed_error(event).body)]

    def _start(self, event: dict[str, Any]) -> list[bytes]:
        index, block = _index(event), _member(event, "content_block")
        if len(self._blocks) + len(self._calls) >= MOST_BLOCKS:
            raise UnreadableAnswerError
        self._blocks[index] = block
        kind = block.get("type")
        if kind == "text":
            return self._said("content", block.get("text"))
        if kind == "tool_use":
            self._calls[index] = len(self._calls)
            return self._chunks({"tool_calls": [{"index": self._calls[index]} | answer.called(block, "")]})
        if kind in _THINKING:
            for name in ("thinking", "signature", "data"):
                self._keep(index, name, block.get(name))
            return self._said("reasoning_content", block.get("thinking"))
        return [_STILL_HERE]

    def _delta(self, event: dict[str, Any]) -> list[bytes]:
        index, delta = _index(event), _member(event, "delta")
        kind = delta.get("type")
        block = self._blocks.get(index, {})
        if kind == "text_delta":
            return self._said("content", delta.get("text"))
        if kind == "input_json_delta" and index in self._calls:
            return self._arguments(index, delta.get("partial_json"))
        if kind in ("thinking_delta", "signature_delta"):
            name = "thinking" if kind == "thinking_delta" else "signature"
            text = delta.get(name)
            if block.get("type") == "thinking":
                self._keep(index, name, text)
            return self._said("reasoning_content", text) if name == "thinking" else [_STILL_HERE]
        return [_STILL_HERE]

    def _stop(self, event: dict[str, Any]) -> list[bytes]:
        index = _index(event)
        block = self._blocks.pop(index, {})
        if block.get("type") in _THINKING:
            kept = {name: "".join(self._thoughts.pop((index, name), ())) for name in _THINKING[block["type"]]}
            return self._chunks({"thinking_blocks": [block | kept]})
        if index in self._calls and index not in self._arguments_begun:
            return self._arguments(index, answer.as_text(block.get("input") or {}))
        return []

    def _arguments(self, index: int, text: Any) -> list[bytes]:
        if not isinstance(text, str) or not text:
            return [_STILL_HERE]
        self._arguments_begun.add(index)
        return self._chunks({"tool_calls": [{"index": self._calls[index], "function": {"arguments": text}}]})

    def _said(self, member: str, text: Any) -> list[bytes]:
        return self._chunks({member: text}) if isinstance(text, str) and text else [_STILL_HERE]

    def _end(self, _: dict[str, Any] | None = None) -> list[bytes]:
        reason = answer.finish_reason(self._stop_reason)
        refused = answer.explanation(self._stop_details) if self._stop_reason == "refusal" else None
        pieces = self._chunks({"refusal": refused}) if refused else self._chunks()
        pieces.append(self._chunk([_choice({}, reason)]))
        if (counted := usage.as_chat(self._usage)) is not None:
            pieces.append(self._chunk([], {"usage": counted}))
        self.done = True
        return [*pieces, _data(b"[DONE]")]

    def _counts_so_far(self) -> list[bytes]:
        counted = usage.as_chat(self._usage)
        return [] if counted is None else [self._chunk([_choice({})], {"usage": counted})]

    def _chunks(self, delta: dict[str, Any] | None = None) -> list[bytes]:
        """Return a chunk with `delta`, after the one that says whose answer it is where that has not left."""
        pieces = []
        if not self._begun:
            self._begun = True
            pieces.append(self._chunk([_choice({"role": "assistant", "content": ""})]))
        if delta is not None:
            pieces.append(self._chunk([_choice(delta)]))
        return pieces

    def _chunk(self, choices: list[dict[str, Any]], more: dict[str, Any] | None = None) -> bytes:
        named = {"id": self._id, "object": "chat.completion.chunk", "created": self._created, "model": self._model}
        return _data(msgspec.json.encode(named | {"choices": choices} | (more or {})))

    _READERS: ClassVar[dict[str, Callable[["TranslatedStream", dict[str, Any]], list[bytes]]]] = {
        "message_start": _message_start,
        "content_block_start": _start,
        "content_block_delta": _delta,
        "content_block_stop": _stop,
        "message_delta": _message_delta,
        "message_stop": _end,
        "error": _error,
    }

    def _keep(self, index: int, name: str, text: Any) -> None:
        if isinstance(text, str) and text:
            self._thoughts.setdefault((index, name), []).append(text)
            self._kept += len(text)
            if self._kept > MOST_THINKING:
                raise UnreadableAnswerError


def _choice(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}


def _data(text: bytes) -> bytes:
    return b"data: " + text + b"\n\n"


def _read(data: bytes) -> dict[str, Any]:
    try:
        event = json_text.loads(data)
    except json_text.UnreadableTextError:
        raise UnreadableAnswerError from None
    if not isinstance(event, dict):
        raise UnreadableAnswerError
    return event


def _member(event: dict[str, Any], name: str) -> dict[str, Any]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise UnreadableAnswerError
    return value


def _index(event: dict[str, Any]) -> int:
    value = event.get("index")
    if not isinstance(value, int):
        raise UnreadableAnswerError
    return value
