"""Reads token counts from upstream answers and puts the slug where the upstream wrote its own model name (spec 3, 4).

Fed bytes, gives bytes; never waits, and never holds back an event of a stream that is whole, but for `[DONE]`:
what follows the last content may leave only when the usage event is durable.

A stream is cut at blank lines (HTML Living Standard, server-sent events). An event whose `data` is a JSON object may
carry `model` and `usage`; the one with `usage` and no choices is the usage chunk, which only a client that asked for
it may see.
"""

import re
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from proxy.core import members
from schemas.usage import Tokens, UsageSource

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A server-sent event longer than this is passed on unread rather than gathered."""

_MAX_TOKENS = 2**53
_BYTES_PER_TOKEN = 4
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_MODEL = re.compile(rb'("model"[ \t]*:[ \t]*)"[^"\\]*(?:\\.[^"\\]*)*"')
_USAGE = re.compile(rb'"usage"[ \t\r\n]*:[ \t\r\n]*\{')
_CONTENT = re.compile(
    rb'"(?:content|arguments|reasoning_content|reasoning|refusal)"[ ]*:[ ]*"([^"\\]*(?:\\.[^"\\]*)*)"'
)
_DATA_FIELD = re.compile(rb"^data:[ ]?(.*)$", re.MULTILINE)


MISSING = Raw()
"""Stands for a member that is not there."""


class _Answer(msgspec.Struct):
    """What is read of an answer or a chunk; all of it optional, for upstreams differ."""

    model: Raw = MISSING
    usage: Raw = MISSING
    choices: Raw = MISSING


_decoder = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True)
class Count:
    """Token counts and where they come from."""

    tokens: Tokens
    source: UsageSource


def plain(body: bytes, slug: str) -> tuple[bytes, Tokens | None]:
    """Give an unstreamed answer with the slug as its model, and the counts it reports (None: none)."""
    answer = _peek(body)
    if answer is None:
        return body, None
    if answer.model is not MISSING:
        encoded = msgspec.json.encode(slug)
        body = members.splice(
            body, [(span, encoded) for span in members.locate(body, b"model", len(bytes(answer.model)))]
        )
    return body, _tokens(answer.usage)


def settle(reported: Tokens | None, prompt_tokens: int, content_bytes: int) -> Count:
    """Give the counts to bill: the provider's, else an estimate of at least 1 in, and 1 out where content was sent."""
    if reported is not None:
        return Count(reported, UsageSource.PROVIDER)
    output = -(-content_bytes // _BYTES_PER_TOKEN)
    return Count(Tokens(input_tokens=max(1, prompt_tokens), output_tokens=output), UsageSource.ESTIMATED)


def content_bytes(text: bytes) -> int:
    """Give the bytes of generated text in an answer or event, as they stand in the JSON."""
    return sum(len(content) for content in _CONTENT.findall(text))


class Stream:
    """Follows one stream of server-sent events.

    `feed` gives what may leave at once; after `finish`, `held` is what may leave once the usage event is durable.
    """

    def __init__(self, slug: str, *, keep_usage: bool) -> None:
        self.tokens: Tokens | None = None
        self.content_bytes = 0
        self.done = False
        """Whether `[DONE]` has come: the answer is whole, whatever the connection does next."""
        self.held = b""
        self._keep_usage = keep_usage
        self._model = b"\\1" + msgspec.json.encode(slug).replace(b"\\", b"\\\\")
        self._slug = slug
        self._partial = b""

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived; give the whole events in it, as the client may see them."""
        text = self._partial + chunk if self._partial else chunk
        self._partial = b""
        if b"\r" not in text:
            whole, separator, rest = text.rpartition(b"\n\n")
            if not separator:
                return self._gather(text)
            out = [self._event(event + separator) for event in whole.split(b"\n\n")]
        else:
            out, rest = self._split(text)
        out.append(self._gather(rest))
        return b"".join(out)

    def finish(self) -> None:
        """Take the end of the upstream's bytes: a last event without its blank line goes to `held`."""
        rest, self._partial = self._partial, b""
        if rest:
            self.held += self._event(rest)

    def _split(self, text: bytes) -> tuple[list[bytes], bytes]:
        out = []
        start = 0
        for blank in _BLANK_LINE.finditer(text):
            out.append(self._event(text[start : blank.end()]))
            start = blank.end()
        return out, text[start:]

    def _gather(self, rest: bytes) -> bytes:
        if len(rest) > MAX_EVENT_BYTES:
            return rest
        self._partial = rest
        return b""

    def _event(self, event: bytes) -> bytes:
        if self.done:
            self.held += event
            return b""
        if event.startswith(b"data: {") and event.find(b"\ndata:") < 0:
            data = event[6:]
        else:
            data = b"\n".join(_DATA_FIELD.findall(event.replace(b"\r\n", b"\n").replace(b"\r", b"\n")))
        if data.strip() == b"[DONE]":
            self.done = True
            self.held += event
            return b""
        if b'"usage"' in data and _USAGE.search(data) and self._read_usage(data) and not self._keep_usage:
            return b""
        self.content_bytes += content_bytes(data)
        return self._rename(event)

    def _read_usage(self, data: bytes) -> bool:
        """Keep the counts of a chunk; say whether it is the usage chunk, one without choices."""
        answer = _peek(data)
        if answer is None:
            return False
        tokens = _tokens(answer.usage)
        if tokens is not None:
            self.tokens = tokens
        return tokens is not None and not _decode(answer.choices)

    def _rename(self, event: bytes) -> bytes:
        count = event.count(b'"model"')
        if count == 1:
            return _MODEL.sub(self._model, event, count=1)
        if count == 0:
            return event
        start = event.find(b"{")
        if start < 0:
            return event
        encoded = msgspec.json.encode(self._slug)
        spans = [span for name, span in members.members(event[start:]) if name == b"model"]
        return event[:start] + members.splice(event[start:], [(span, encoded) for span in spans])


def _peek(text: bytes) -> _Answer | None:
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _decode(raw: Raw) -> Any:
    try:
        return None if raw is MISSING else msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


def _tokens(raw: Raw) -> Tokens | None:
    """Read a `usage` object; None where it is missing or is not what the API document says."""
    usage = _decode(raw)
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt, completion = _whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens", 0))
    if prompt is None or completion is None:
        return None
    return Tokens(input_tokens=prompt, output_tokens=completion, cached_input_tokens=min(_whole(cached) or 0, prompt))


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MAX_TOKENS else None
