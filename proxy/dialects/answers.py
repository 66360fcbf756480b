"""Reads upstream answers as their clients read them, and puts the slug where the upstream wrote its own model name.

Fed bytes, returns bytes. Never holds back an event of a stream that is whole, except for `[DONE]`:
what follows the last content may leave only when the usage event is durable.

A stream is cut at blank lines (HTML Living Standard, server-sent events). An event whose `data` is a JSON object may
carry `model`, `choices`, `usage` and `error`; the one with `usage` and no choices is the usage chunk, which only a
client that asked for it may see. What no client can read is passed on as it came.

A usual event costs one decoding and one comparison with the beginning of the event before it. Bytes are sought by
`find`: CPython 3.11's `in` makes a TypeError of what it seeks, and drops it, before it looks (`_Py_bytes_contains`).
"""

import mmap
import re
from collections.abc import Callable
from typing import Any

import msgspec

from proxy.dialects import answer_json, json_members, json_text, usage, written
from proxy.dialects.json_members import Span
from proxy.dialects.json_text import BOM
from proxy.limits.estimate import BYTES_PER_TOKEN, TokenCounts
from schemas.usage import UsageSource

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""A server-sent event longer than this is passed on unread rather than gathered."""
MOST_CHOICES = 1024
"""Of a stream, whose ends are followed; upstreams give at most 128."""

_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LONGEST_BLANK_LINE = 4
_MAX_BEGINNING = 4096
_DONE = b"[DONE]"
"""What the data of the last event begins with, as the OpenAI SDKs compare it: with a line before it, they read on."""
_DATA_FIELD = re.compile(rb"^data(?::[ ]?(.*))?$", re.MULTILINE)
_BLANK_LINES = b"\n\n"
_LF, _CR = b"\n\r"


class Count(msgspec.Struct, frozen=True):
    """Token counts and where they come from."""

    tokens: TokenCounts
    source: UsageSource
    choices: int = 1
    """How many came, where its server counted."""


class Plain(msgspec.Struct, frozen=True):
    """What an unstreamed answer says."""

    body: bytes
    """As the client may see it: with the slug as its model."""
    tokens: TokenCounts | None
    """The counts that it reports."""
    content_bytes: int
    """What the model wrote, where no counts are reported."""
    failed: bool
    """Whether it is an error, although its status is 2xx."""
    choices: int = 1
    """How many came; 1 where they were not looked into."""
    large: mmap.mmap | None = None  # the body, where it lies in a file: `body` is empty then


def plain(
    body: bytes,
    slug: str,
    *,
    counted: Callable[[dict[str, Any]], TokenCounts | None] = usage.reported,
    wrote: Callable[[dict[str, Any]], int] = written.answer_bytes,
) -> Plain:
    """Read an unstreamed answer. One that no client takes for a JSON object passes as it is.

    `counted` reads the counts that it reports, `wrote` the bytes of what the model wrote.
    """
    body = json_text.in_utf8(body)
    answer = answer_json.read(body)
    if answer is None:
        return Plain(body, None, written.unread_bytes(body), failed=False)
    tokens = counted(answer)
    content, choices = 0, answer.get("choices")
    if tokens is None:
        content = written.unread_bytes(body) if choices is answer_json.UNREAD else wrote(answer)
    failed = answer_json.has_error(answer) and not choices
    came = len(choices) if isinstance(choices, list) else 1
    return Plain(_named(body, answer, msgspec.json.encode(slug)), tokens, content, failed, came)


def to_bill(
    reported: TokenCounts | None, likely: Callable[[], TokenCounts], content_bytes: int, choices: int = 1
) -> Count:
    """Return the counts to bill: the provider's, else an estimate: at least 1 in, and 1 out where content was sent.

    `likely` gives the input to bill then; it is asked only where it is needed.
    """
    if reported is not None:
        return Count(reported, UsageSource.PROVIDER, choices)
    tokens = TokenCounts(input_tokens=max(1, likely().input_tokens), output_tokens=_estimate(content_bytes))
    return Count(tokens, UsageSource.ESTIMATED)


def cut_short(reported: TokenCounts | None, likely: Callable[[], TokenCounts], content_bytes: int) -> Count:
    """Return the counts to bill of an answer that had not come to its end.

    `reported` is what its server had counted so far: output is that or the estimate of what came, if greater; input is
    the server's count, if it has one.
    """
    output = _estimate(content_bytes)
    if reported is None or not reported.input_tokens:
        count = to_bill(None, likely, content_bytes)
        output = max(output, reported.output_tokens if reported is not None else 0)
        return Count(msgspec.structs.replace(count.tokens, output_tokens=output), UsageSource.ESTIMATED)
    if reported.output_tokens >= output:
        return Count(reported, UsageSource.PROVIDER)
    return Count(msgspec.structs.replace(reported, output_tokens=output), UsageSource.ESTIMATED)


class StreamReader:
    """Follows one stream of server-sent events.

    `feed` gives what may leave at once; after `finish`, `held` is what may leave once the usage event is durable.
    """

    def __init__(self, slug: str, *, keep_usage: bool) -> None:
        self.tokens: TokenCounts | None = None
        """The counts that were reported last, except for zeros."""
        self.content_bytes = 0
        """What the model wrote until now."""
        self.done = False
        """Whether `[DONE]` has come: the answer is at its end, whatever the connection does next."""
        self.failed = False
        """Whether the upstream has told of an error, which its client gets as it came."""
        self.held = b""
        self._keep_usage = keep_usage
        self._slug = msgspec.json.encode(slug)
        self._partial = bytearray()
        self._begun = False
        self._removed = False
        """Whether the last event was kept from the client."""
        self._cut_at_cr = False
        """Whether the last event ended in a CR at the end of a chunk, whose LF may still come."""
        self._open: set[int] = set()
        """Choices that have not come to their ends."""
        self._ended: set[int] = set()
        self._counted = False
        """Whether the usage chunk has come, and nothing that was written after it."""
        self._beginning = self._named_beginning = b""
        """The last event up to the end of its model's name, as it came and as it left: most events begin alike."""

    @property
    def is_whole(self) -> bool:
        """Whether `[DONE]`, or the usage chunk, or the end of each choice has come, and no error."""
        return not self.failed and (self.done or self._counted or (bool(self._ended) and not self._open))

    @property
    def choices(self) -> int:
        """Return how many choices have come."""
        return len(self._open | self._ended)

    @property
    def held_bytes(self) -> int:
        """Return how much of an event is held that is not whole yet."""
        return len(self._partial)

    @property
    def is_counted(self) -> bool:
        """Whether the counts are those of the whole answer."""
        return self.tokens is not None and (self.done or self._counted)

    def feed(self, chunk: bytes) -> bytes:
        """Take what arrived; return the whole events in it, as the client may see them."""
        if not self._begun:
            chunk = self._begin(chunk)
        if self._partial or self._cut_at_cr or _CR in chunk:
            return self._gather(chunk)
        if 0 <= chunk.find(_BLANK_LINES) == len(chunk) - 2:  # one event, and whole
            return self._event(chunk)
        *events, rest = chunk.split(_BLANK_LINES)
        self._partial += rest
        return b"".join([self._event(event + _BLANK_LINES) for event in events])

    def finish(self) -> None:
        """Take the end of the upstream's bytes. A last event without its blank line goes to `held`.

        Clients drop such an event, so it is completed where it is an error, of which they must be told.
        """
        rest = bytes(self._partial)
        self._partial.clear()
        if not rest:
            return
        had_failed = self.failed
        ready = self._event(rest)  # which may add to what is held
        self.held += ready
        if self.failed and not had_failed:
            self.held += _BLANK_LINES

    def error_event(self, status: int, error: bytes) -> bytes:
        """Return the event that ends a stream with an error of the gateway's own; no `[DONE]` follows."""
        return b"data: " + error + b"\n\n"

    def _begin(self, chunk: bytes) -> bytes:
        """Leave out a byte order mark, which may come in pieces (HTML Living Standard, 9.2.5)."""
        chunk = bytes(self._partial) + chunk
        self._partial.clear()
        if len(chunk) < len(BOM) and BOM.startswith(chunk):
            self._partial += chunk
            return b""
        self._begun = True
        return chunk.removeprefix(BOM)

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
            self.content_bytes += written.unread_bytes(unread)
            out.append(unread)
            gathered.clear()
        return b"".join(out)

    def _line_feed(self) -> bytes:
        """Let the LF that completes the last event's CR go where that event went."""
        if self.done and not self.failed:
            self.held += b"\n"
        return b"" if self.done or self._removed else b"\n"

    def _event(self, event: bytes) -> bytes:
        self._removed = False
        line = event.strip(b"\r\n")
        simple = line.startswith(b"data:") and _LF not in line and _CR not in line
        data = line[5:].removeprefix(b" ") if simple else b"\n".join(_DATA_FIELD.findall(_with_lf(line)))
        if self.done:
            return self._hold(event)
        return self._read(event, data) if data else event

    def _hold(self, event: bytes) -> bytes:
        """Keep what may leave only when the usage event is durable."""
        if not self.failed:  # after an error nothing may look like success
            self.held += event
        return b""

    def _read(self, event: bytes, data: bytes) -> bytes:
        """Take an event and its data; return it as the client may see it."""
        if data.startswith(_DONE):
            self.done = True
            return self._hold(event)
        answer = answer_json.read(data)
        if answer is None:
            self.content_bytes += written.unread_bytes(data)
            return event
        is_usage_chunk = self._take(data, answer)
        if "error" in answer and answer_json.has_error(answer):
            self.failed = True
        elif is_usage_chunk and not self._keep_usage:
            self._removed = True
            return b""
        return self._rename(event, data, answer) if "model" in answer else event

    def _take(self, data: bytes, answer: dict[str, Any]) -> bool:
        """Take what an event says of choices and counts; say whether it is the usage chunk, one without choices."""
        choices = answer.get("choices")
        if choices and isinstance(choices, list):
            self._follow(choices)
        if data.find(b'usage"') < 0 and data.find(b"\\u00") < 0:
            return False
        tokens = usage.reported(answer)
        counted = tokens is not None and usage.is_counted(tokens)
        if counted:
            self.tokens = tokens
        if choices or not isinstance(answer.get("usage"), dict):
            return False
        self._counted = self._counted or counted
        return True

    def _follow(self, choices: list[Any]) -> None:
        """Count what the model wrote, and follow which of the choices have come to their ends."""
        size = 0
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            size += written.choice_bytes(choice)
            index = choice.get("index", 0)
            if type(index) is not int or not 0 <= index < MOST_CHOICES:
                index = 0
            if choice.get("finish_reason"):
                self._ended.add(index)
                self._open.discard(index)
            elif index not in self._ended:
                self._open.add(index)
        if size:
            self.content_bytes += size
            self._counted = False

    def _rename(self, event: bytes, data: bytes, answer: dict[str, Any]) -> bytes:
        known = self._beginning
        if known and event.startswith(known) and answer_json.is_only_model(event, len(known)):
            return self._named_beginning + event[len(known) :]
        spans = answer_json.model_spans(data)
        offset = event.find(data)
        if offset >= 0:
            self._remember(event, offset, spans)
        return self._with_slug(event, data, spans)

    def _with_slug(self, event: bytes, data: bytes, spans: list[Span]) -> bytes:
        """Return an event with the slug at these places of its data."""
        offset = event.find(data)
        if offset >= 0:
            return json_members.splice(event, [((start + offset, stop + offset), self._slug) for start, stop in spans])
        named = json_members.splice(data, [(span, self._slug) for span in spans])
        others = [line for line in _with_lf(event).split(b"\n") if line and not _DATA_FIELD.match(line)]
        ending = event[len(event.rstrip(b"\r\n")) :]
        return b"\n".join([*others, *(b"data: " + line for line in named.split(b"\n"))]) + ending

    def _remember(self, event: bytes, offset: int, spans: list[Span]) -> None:
        """Keep how the event begins, where its model is a string that other events may have in the same place."""
        self._beginning = b""
        if len(spans) == 1:
            start, stop = spans[0][0] + offset, spans[0][1] + offset
            if stop <= _MAX_BEGINNING and event[start : start + 1] == b'"' and answer_json.is_only_model(event, stop):
                self._beginning = event[:stop]
                self._named_beginning = event[:start] + self._slug


def _estimate(size: int) -> int:
    return -(-max(0, size) // BYTES_PER_TOKEN)  # below 0: not all of an echoed prompt has come


def _with_lf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if _CR in text else text


def _named(text: bytes, answer: dict[str, Any], slug: bytes) -> bytes:
    """Return an answer with `slug` (as JSON) for its `model`, where it has one."""
    if "model" not in answer:
        return text
    return json_members.splice(text, [(span, slug) for span in answer_json.model_spans(text)])
