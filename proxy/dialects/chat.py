"""Reads what Tollgate must know of a chat completion's body, and writes the body that goes upstream (contract 3).

Never re-serialises the body: all but `model`, `stream_options` and, to OPENAI, `metadata` goes on byte for byte.

Rules: the body is a JSON object in UTF-8; `model` is there once and a string; `stream` is a boolean or null;
`stream_options` an object or null; `metadata` null or at most 16 pairs of strings. All else is the upstream's business.
"""

import re
from contextlib import suppress
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from proxy.dialects import json_members
from proxy.dialects.json_members import MISSING, Span

METADATA_MAX_PAIRS = 16
METADATA_MAX_KEY = 64
METADATA_MAX_VALUE = 512
METADATA_MAX_BYTES = 16 * 1024
_METADATA_MAX_TEXT = 16 * METADATA_MAX_BYTES  # as it was sent, with escapes and spaces; more is not even decoded
_COUNT = re.compile(rb"[0-9][0-9.eE+]{0,24}")
_MAX_COUNT = 2**53
_MOST_HALVES = 10_000
"""Of surrogate pairs; a body with more escapes of them that no decoder takes is not looked into."""
_OPTIONS_MAX_BYTES = 4096
_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
_INCLUDE_USAGE = b'"stream_options":{"include_usage":true}'


class _Body(msgspec.Struct):
    """The top-level members that Tollgate reads, undecoded. Of a repeated name the last one."""

    model: Raw = MISSING
    stream: Raw = MISSING
    stream_options: Raw = MISSING
    metadata: Raw = MISSING
    max_tokens: Raw = MISSING
    max_completion_tokens: Raw = MISSING
    n: Raw = MISSING
    store: Raw = MISSING


class _StreamOptions(msgspec.Struct):
    include_usage: Raw = MISSING


_decoder = msgspec.json.Decoder(_Body)
_options_decoder = msgspec.json.Decoder(_StreamOptions)


@dataclass(frozen=True, slots=True)
class Invalid:
    """Why a body is refused: the message says which field and what is allowed."""

    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What Tollgate knows of a body."""

    body: bytes
    slug: str
    model: Span
    stream: bool
    stream_options: Span | None
    """The value of `stream_options`, only where `stream` is true and the member is there."""
    include_usage: bool
    """Whether the client itself asked for the usage chunk."""
    metadata: dict[str, str] | None
    max_tokens: int | None
    """The most completion tokens of one choice, where the client says so."""
    choices: int
    stores: bool
    """Whether the upstream is asked to keep the completion, with its metadata."""
    token_ids: int = 0
    """How many of the prompt's tokens are given by their numbers."""


class _Refused(Exception):  # noqa: N818  (never leaves this module)
    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.invalid = Invalid(message, param)


def parse(body: bytes, *, any_metadata: bool = False) -> ChatRequest | Invalid:
    """Read a chat completion's body. `any_metadata`: what is no event's metadata is left alone instead of refused."""
    try:
        return _parse(body, any_metadata=any_metadata)
    except _Refused as refused:
        return refused.invalid
    except json_members.TooManyMembersError:
        return Invalid(f"The body may have at most {json_members.MOST_MEMBERS} members.")


def upstream_body(request: ChatRequest, target_model: str | None, *, stored_metadata_only: bool = False) -> bytes:
    """Return the bytes for the upstream: the target's model name, and usage asked for in a stream.

    `stored_metadata_only`: the upstream refuses metadata, unless it is asked to store the completion with it.
    """
    body = request.body
    replacements: list[tuple[Span, bytes]] = []
    if target_model is not None:
        replacements.append((request.model, msgspec.json.encode(target_model)))
    if request.stream and request.stream_options is not None:
        start, stop = request.stream_options
        replacements.append((request.stream_options, _asking_for_usage(body[start:stop])))
    body = json_members.splice(body, replacements)
    if request.stream and request.stream_options is None:
        body = json_members.insert_first(body, _INCLUDE_USAGE)
    if stored_metadata_only and request.metadata is not None and not request.stores:
        with suppress(json_members.TooManyMembersError):  # then the upstream says itself what it refuses
            body = json_members.without(body, b"metadata")
    return body


def _parse(body: bytes, *, any_metadata: bool) -> ChatRequest:
    peeked = _peek(body)
    slug, span = _model(body, peeked.model)
    stream = _stream(body, peeked.stream)
    options: Span | None = None
    include_usage = False
    if stream and peeked.stream_options is not MISSING:
        options, include_usage = _stream_options(body, peeked.stream_options)
    return ChatRequest(
        body=body,
        slug=slug,
        model=span,
        stream=stream,
        stream_options=options,
        include_usage=include_usage,
        metadata=_metadata(peeked.metadata, or_none=any_metadata),
        max_tokens=max(filter(None, map(count, (peeked.max_completion_tokens, peeked.max_tokens))), default=None),
        choices=count(peeked.n) or 1,
        stores=bytes(peeked.store) == b"true",
    )


def _peek(body: bytes) -> _Body:
    try:
        if not body.isascii():
            body.decode()  # the JSON decoder does not look into the strings that it skips
        return _decoder.decode(body)
    except UnicodeDecodeError:
        raise _Refused("The body is not valid UTF-8.") from None
    except RecursionError:
        raise _Refused("The body is nested too deeply.") from None
    except msgspec.ValidationError:
        raise _Refused("The body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        halves = body.lower().count(b"\\ud")
        whole = _SURROGATE.sub(_replaced, body) if 0 < halves <= _MOST_HALVES else body
        if whole == body:
            raise _Refused(f"The body is not valid JSON: {error}.") from None
        return _peek_around(body, whole)


def _peek_around(body: bytes, whole: bytes) -> _Body:
    """Read a body with halves of surrogate pairs, which JSON allows and the decoder does not, by a `whole` twin.

    Both are of one length; the halves go upstream as they came, but may not be in what is read here.
    """
    peeked = _peek(whole)
    for name, (start, stop) in json_members.members(body):
        if name in (b"model", b"metadata") and body[start:stop] != whole[start:stop]:
            field = name.decode()
            raise _Refused(f"Field {field} must not hold half of a surrogate pair.", field)
    return peeked


def _replaced(escape: re.Match[bytes]) -> bytes:
    lone = len(escape.group()) == len(rb"\ud800")
    return rb"\ufffd" if lone else escape.group()


def _model(body: bytes, raw: Raw) -> tuple[str, Span]:
    if raw is MISSING:
        raise _Refused("Field model is required: the slug of a model, as GET /v1/models lists them.", "model")
    text = bytes(raw)
    if not text.startswith(b'"'):
        raise _Refused("Field model must be a string: the slug of a model.", "model")
    spans = json_members.locate(body, b"model", len(text))
    if len(spans) != 1:
        raise _Refused("Field model must be given once.", "model")
    return msgspec.json.decode(text, type=str), spans[0]


def _stream(body: bytes, raw: Raw) -> bool:
    text = bytes(raw)
    if text not in (b"", b"true", b"false", b"null"):
        raise _Refused("Field stream must be true or false.", "stream")
    if raw is not MISSING and json_members.is_repeated(body, b"stream"):
        raise _Refused("Field stream must be given once.", "stream")
    return text == b"true"


def _stream_options(body: bytes, raw: Raw) -> tuple[Span, bool]:
    text = bytes(raw)
    if text != b"null" and not text.startswith(b"{"):
        raise _Refused("Field stream_options must be an object.", "stream_options")
    if len(text) > _OPTIONS_MAX_BYTES:
        raise _Refused(f"Field stream_options may be at most {_OPTIONS_MAX_BYTES} bytes.", "stream_options")
    spans = json_members.locate(body, b"stream_options", len(text))
    if len(spans) != 1:
        raise _Refused("Field stream_options must be given once.", "stream_options")
    asked = text != b"null" and bytes(_options_decoder.decode(text).include_usage) == b"true"
    return spans[0], asked


def _asking_for_usage(options: bytes) -> bytes:
    if options == b"null":
        return b'{"include_usage":true}'
    spans = [span for name, span in json_members.members(options) if name == b"include_usage"]
    if spans:
        return json_members.splice(options, [(span, b"true") for span in spans])
    return json_members.insert_first(options, b'"include_usage":true')


def _metadata(raw: Raw, *, or_none: bool = False) -> dict[str, str] | None:
    try:
        return _read_metadata(raw)
    except _Refused:
        if or_none:
            return None
        raise


def _read_metadata(raw: Raw) -> dict[str, str] | None:
    text = bytes(raw)
    if text in (b"", b"null"):
        return None
    if len(text) > _METADATA_MAX_TEXT:
        raise _Refused(f"Field metadata may be at most {METADATA_MAX_BYTES} bytes as JSON.", "metadata")
    try:
        value = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.DecodeError, RecursionError):
        raise _Refused("Field metadata must be an object of strings.", "metadata") from None
    if len(value) > METADATA_MAX_PAIRS:
        raise _Refused(f"Field metadata may hold at most {METADATA_MAX_PAIRS} pairs.", "metadata")
    if any(len(key) > METADATA_MAX_KEY or len(each) > METADATA_MAX_VALUE for key, each in value.items()):
        limits = f"{METADATA_MAX_KEY} characters in a key, {METADATA_MAX_VALUE} in a value"
        raise _Refused(f"Field metadata may hold at most {limits}.", "metadata")
    if len(msgspec.json.encode(value)) > METADATA_MAX_BYTES:
        raise _Refused(f"Field metadata may be at most {METADATA_MAX_BYTES} bytes as JSON.", "metadata")
    return value


def count(raw: Raw) -> int | None:
    """Return a count, read as lenient upstreams do: ``1000``, ``1000.0`` and ``1e3`` are one; None for what is none."""
    text = bytes(raw)
    try:
        count: float = (int(text) if text.isdigit() else float(text)) if _COUNT.fullmatch(text) else 0
    except ValueError:
        return None
    return int(count) if 0 < count <= _MAX_COUNT and count == int(count) else None
