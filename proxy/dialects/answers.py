"""Reads token counts from upstream answers and puts the slug where the upstream wrote its own model name.

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

from proxy.dialects import json_members
from proxy.dialects.json_members import MISSING
from proxy.limits.estimate import BYTES_PER_TOKEN
from schemas.usage import MOST_TOKENS, Tokens, UsageSource

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A server-sent event longer than this is passed on unread rather than gathered."""

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LONGEST_BLANK_LINE = 4
_MODEL = re.compile(rb'("model"[ \t]*:[ \t]*)"[^"\\]*(?:\\.[^"\\]*)*"')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_CONTENT = re.compile(
    rb'"(?:content|reasoning_content|reasoning|refusal|arguments|name|input|text)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"',
    re.DOTALL,
)
_DONE = b"[DONE]"
"""What the data of the last event begins with, as the OpenAI SDKs compare it: with a line before it, they read on."""
_DATA_FIELD = re.compile(rb"^data:[ ]?(.*)$", re.MULTILINE)


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


def plain(body: bytes, slug: str) -> tuple[bytes, Tokens | None, int]:
    """Return an unstreamed answer with the slug as its model, the counts it reports (None: none), its content's bytes.

    An answer that is no JSON object passes as it is, all of it content.
    """
    answer = _peek(body)
    if answer is None:
        return body, None, len(body)
    tokens = _tokens(_decode(answer.usage))
    content = 0 if tokens is not None else content_bytes(body)
    return _named(body, answer.model, msgspec.json.encode(slug)), tokens, content


def to_bill(reported: Tokens | None, prompt_tokens: int, content_bytes: int) -> Count:
    """Return the counts to bill: the provider's, else an estimate: at least 1 in, and 1 out where content was sent."""
    if reported is not None:
        return Count(reported, UsageSource.PROVIDER)
    output = -(-content_bytes // BYTES_PER_TOKEN)
    return Count(Tokens(input_tokens=max(1, prompt_tokens), output_tokens=output), UsageSource.ESTIMATED)


def content_bytes(text: bytes) -> int:
    """Return the bytes of generated text in an answer or event, as they stand in the JSON."""
    return sum(len(content) for content in _CONTENT.findall(text))


class StreamReader:
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
        self._slug = msgspec.json.encode(slug)
        self._replacement = b"\\1" + self._slug.replace(b"\\", b"\\\\")
        self._partial = bytearray()
        self._removed = False
        """Whether the last event was kept from the client."""
        self._cut_at_cr = False
        """Whether the last event ended in a CR at the end of a chunk, whose LF may still come."""

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived; return the whole events in it, as the client may see them."""
        if self._partial or self._cut_at_cr or b"\r" in chunk:
            return self._gather(chunk)
        *events, rest = chunk.split(b"\n\n")
        self._partial += rest
        return b"".join([self._event(event + b"\n\n") for event in events])

    def finish(self) -> None:
        """Take the end of the upstream's bytes: a last event without its blank line goes to `held`."""
        rest = bytes(self._partial)
        self._partial.clear()
        if rest:
            ready = self._event(rest)
            self.held += ready

    def _gather(self, chunk: bytes) -> bytes:
        out = []
        if self._cut_at_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            out.append(self._line_feed())
        gathered = self._partial
        searched = max(0, len(gathered) - _LONGEST_BLANK_LINE + 1)
        gathered += chunk
        start = 0
        while (blank := _BLANK_LINE.search(gathered, searched)) is not None:
            searched = blank.end()
            out.append(self._event(bytes(gathered[start:searched])))
            start = searched
        self._cut_at_cr = 0 < start == len(gathered) and gathered.endswith(b"\r")
        del gathered[:start]
        if len(gathered) > MAX_EVENT_BYTES and not self.done:
            unread = bytes(gathered)
            self.content_bytes += content_bytes(unread) or len(unread)
            out.append(unread)
            gathered.clear()
        return b"".join(out)

    def _line_feed(self) -> bytes:
        """Let the LF that completes the last event's CR go where that event went."""
        if self.done:
            self.held += b"\n"
        return b"" if self.done or self._removed else b"\n"

    def _event(self, event: bytes) -> bytes:
        self._removed = False
        if self.done:
            self.held += event
            return b""
        line = event.strip(b"\r\n")
        simple = line.startswith(b"data:") and b"\n" not in line and b"\r" not in line
        data = line[5:].removeprefix(b" ") if simple else b"\n".join(_DATA_FIELD.findall(_with_lf(line)))
        if data.startswith(_DONE):
            self.done = True
            self.held += event
            return b""
        if b'"usage"' in data and _USAGE.search(data) and self._read_usage(data) and not self._keep_usage:
            self._removed = True
            return b""
        self.content_bytes += content_bytes(data)
        return self._rename(event, data, simple=simple) if b'"model"' in data else event

    def _read_usage(self, data: bytes) -> bool:
        """Keep the counts of a chunk; say whether it is the usage chunk, one without choices."""
        answer = _peek(data)
        usage = _decode(answer.usage) if answer is not None else None
        if answer is None or not isinstance(usage, dict):
            return False
        tokens = _tokens(usage)
        if tokens is not None and (self.tokens is None or _sum(tokens) >= _sum(self.tokens)):
            self.tokens = tokens  # counts that are reported again are running sums: a smaller one takes nothing back
        return not _decode(answer.choices)

    def _rename(self, event: bytes, data: bytes, *, simple: bool) -> bytes:
        place = event.find(b'"model"')
        before = event[:place]
        if simple and before.count(b"{") == 1 and b"[" not in before and event.find(b'"model"', place + 1) < 0:
            return _MODEL.sub(self._replacement, event, count=1)  # at the top: no object or list began before it
        answer = _peek(data)
        if answer is None:
            return event
        named = _named(data, answer.model, self._slug)
        if data in event:
            return event.replace(data, named, 1)
        others = [line for line in _with_lf(event).split(b"\n") if line and not line.startswith(b"data:")]
        ending = event[len(event.rstrip(b"\r\n")) :]
        return b"\n".join([*others, *(b"data: " + line for line in named.split(b"\n"))]) + ending


def _with_lf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in text else text


def _named(text: bytes, model: Raw, slug: bytes) -> bytes:
    """Return an answer or chunk with `slug` (as JSON) for its `model`, as it was decoded."""
    if model is MISSING:
        return text
    try:
        spans = json_members.locate(text, b"model", len(bytes(model)))
    except json_members.TooManyMembersError:  # no answer of the API; it passes as it is
        return text
    return json_members.splice(text, [(span, slug) for span in spans])


def _peek(text: bytes) -> _Answer | None:
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _decode(raw: Raw) -> Any:
    try:
        return None if raw is MISSING else msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _tokens(usage: Any) -> Tokens | None:
    """Read a `usage` object; None where it is missing or is not what the API document says."""
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    prompt, completion = _whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens", 0))
    if prompt is None or completion is None:
        return None
    return Tokens(input_tokens=prompt, output_tokens=completion, cached_input_tokens=min(_whole(cached) or 0, prompt))


def _sum(tokens: Tokens) -> int:
    return tokens.input_tokens + tokens.output_tokens


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
