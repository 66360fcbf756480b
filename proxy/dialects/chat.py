"""Reads what Tollgate must know of a chat completion's body, and writes the body that goes upstream (contract 3).

Never re-serialises the body: all but `model`, `stream_options` and, to OPENAI, `metadata` goes on byte for byte.

Rules: the body is a JSON object in UTF-8; `model` is there once and a string; `stream` is a boolean or null;
`stream_options` an object or null; `metadata` null or at most 16 pairs of strings. All else is the upstream's business.
"""

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec
from msgspec import Raw

from proxy.dialects import json_members, request_members
from proxy.dialects.json_members import MISSING, Span

METADATA_MAX_PAIRS = 16
METADATA_MAX_KEY = 64
METADATA_MAX_VALUE = 512
METADATA_MAX_BYTES = 16 * 1024
_METADATA_MAX_TEXT = 16 * METADATA_MAX_BYTES  # as it was sent, with escapes and spaces; more is not even decoded
_COUNT = re.compile(rb"[0-9][0-9.eE+]{0,24}")
_MAX_COUNT = 2**53
_OPTIONS_MAX_BYTES = 4096
_MOST_TOKENS = ("max_completion_tokens", "max_tokens")
_ONCE = frozenset(("model", "stream", "stream_options", "n", *_MOST_TOKENS))
"""What decides what is asked, counted or reserved: of repeats servers take the first or the last."""
_KNOWN = _ONCE | {"metadata", "store"}
_WITHOUT_HALVES = ("model", "metadata")
_LOCATED = frozenset((*_WITHOUT_HALVES, "stream_options"))
_USAGE = "include_usage"
_NOWHERE: Span = (0, 0)
_NOT_GIVEN = (MISSING, _NOWHERE)
_NONE_FURTHER: Mapping[str, Raw] = {}
_decode_text = msgspec.json.Decoder(str).decode
_INCLUDE_USAGE = b'"stream_options":{"include_usage":true}'


@dataclass(frozen=True, slots=True)
class Invalid:
    """Why a body is refused: the message says which field and what is allowed."""

    message: str
    param: str | None = None


class ChatRequest(msgspec.Struct):
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
    further: Mapping[str, Raw] = msgspec.field(default_factory=dict)
    """The members that were asked for beyond those of chat completions, undecoded."""
    token_ids: int = 0
    """How many of the prompt's tokens are given by their numbers."""
    echoed_bytes: int = 0
    """What of the answer's text is the prompt again, in UTF-8 bytes: nobody wrote it."""
    upstream_body: bytes | mmap.mmap | None = None
    """What goes upstream, where it was made already: of large ones, of which `body` holds nothing."""


class _Refused(Exception):  # noqa: N818  (never leaves this module)
    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.invalid = Invalid(message, param)


def parse(body: bytes, *, further: frozenset[str] = frozenset(), any_metadata: bool = False) -> ChatRequest | Invalid:
    """Read a chat completion's body, or another route's that has what is read here in the same places.

    `further` members may come once like ours. `any_metadata`: what is no event's metadata is left alone, not refused.
    """
    try:
        return _parse(body, further, any_metadata=any_metadata)
    except _Refused as refused:
        return refused.invalid


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
    if stored_metadata_only and request.metadata is not None and not request.stores:
        body = request_members.without(body, "metadata")
    if request.stream and request.stream_options is None:
        body = json_members.insert_first(body, _INCLUDE_USAGE)
    return body


def _parse(body: bytes, further: frozenset[str], *, any_metadata: bool) -> ChatRequest:
    members = _plain_reader(further).read(body)
    if members is None:
        members = _closely_read(body, further)
    value, model = members.get("model", _NOT_GIVEN)
    slug = _model(value)
    stream = "stream" in members and _stream(members["stream"][0])
    options = members["stream_options"][1] if stream and "stream_options" in members else None
    return ChatRequest(
        body=body,
        slug=slug,
        model=model,
        stream=stream,
        stream_options=options,
        include_usage=options is not None and _asks_for_usage(body[slice(*options)]),
        metadata=_metadata(members["metadata"][0], or_none=any_metadata) if "metadata" in members else None,
        max_tokens=_most_tokens(members),
        choices=(count(members["n"][0]) or 1) if "n" in members else 1,
        stores="store" in members and bytes(members["store"][0]) == b"true",
        further={name: members[name][0] for name in further if name in members} if further else _NONE_FURTHER,
    )


@lru_cache
def _plain_reader(further: frozenset[str]) -> request_members.PlainReader:
    return request_members.PlainReader(_KNOWN | further)


def _closely_read(body: bytes, further: frozenset[str]) -> dict[str, tuple[Raw, Span]]:
    """Read a body in which a name may be repeated, hidden or written oddly. Raise _Refused."""
    members = _read(body)
    known, once = (_KNOWN | further, _ONCE | further) if further else (_KNOWN, _ONCE)
    unclear = request_members.unclear(members, known, once)
    if unclear is not None:
        raise _Refused(f"Field {unclear} must be given once, and in lower case.", unclear)
    places = _places(body, members)
    return {name.text: (value, places.get(name.text, _NOWHERE)) for name, value in members.items()}


def _most_tokens(members: Mapping[str, tuple[Raw, Span]]) -> int | None:
    most = None
    for name in _MOST_TOKENS:
        if name in members and (claimed := count(members[name][0])) is not None and (most is None or claimed > most):
            most = claimed
    return most


def _read(body: bytes) -> request_members.Members:
    try:
        if not body.isascii():
            body.decode()  # the JSON decoder does not look into the strings that it skips
        return request_members.read(body)
    except UnicodeDecodeError:
        raise _Refused("The body is not valid UTF-8.") from None
    except RecursionError:
        raise _Refused("The body is nested too deeply.") from None
    except msgspec.ValidationError:
        raise _Refused("The body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        raise _Refused(f"The body is not valid JSON: {error}.") from None
    except json_members.TooManyMembersError:
        raise _Refused(f"The body may have at most {json_members.MOST_MEMBERS} members.") from None


def _places(body: bytes, members: request_members.Members) -> dict[str, Span]:
    """Return where the values of `model` and `stream_options` stand. Raise _Refused of halves of surrogate pairs."""
    places: dict[str, Span] = {}
    for name, (start, stop), _ in request_members.spans(body, members):
        if name.text not in _LOCATED:
            continue
        if name.text in _WITHOUT_HALVES and body[start:stop] != bytes(members[name]):
            raise _Refused(f"Field {name.text} must not hold half of a surrogate pair.", name.text)
        places[name.text] = (start, stop)
    return places


def _model(raw: Raw) -> str:
    if raw is MISSING:
        raise _Refused("Field model is required: the slug of a model, as GET /v1/models lists them.", "model")
    text = bytes(raw)
    if not text.startswith(b'"'):
        raise _Refused("Field model must be a string: the slug of a model.", "model")
    return _decode_text(text)


def _stream(raw: Raw) -> bool:
    text = bytes(raw)
    if text not in (b"true", b"false", b"null"):
        raise _Refused("Field stream must be true or false.", "stream")
    return text == b"true"


def _asks_for_usage(options: bytes) -> bool:
    if options != b"null" and not options.startswith(b"{"):
        raise _Refused("Field stream_options must be an object.", "stream_options")
    if len(options) > _OPTIONS_MAX_BYTES:
        raise _Refused(f"Field stream_options may be at most {_OPTIONS_MAX_BYTES} bytes.", "stream_options")
    if options == b"null":
        return False
    members = _read(options)
    if request_members.unclear(members, (_USAGE,), ()) is not None:
        raise _Refused("Field stream_options.include_usage must be in lower case.", "stream_options")
    asked = [bytes(value) for name, value in members.items() if name.text == _USAGE]
    return asked[-1:] == [b"true"]


def _asking_for_usage(options: bytes) -> bytes:
    if options == b"null":
        return b'{"include_usage":true}'
    members = request_members.read(options)
    places = [place for name, place, _ in request_members.spans(options, members) if name.text == _USAGE]
    if places:
        return json_members.splice(options, [(place, b"true") for place in places])
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
    if text == b"null":
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


def count(raw: Raw | None) -> int | None:
    """Return a count, read as lenient upstreams do: ``1000``, ``1000.0`` and ``1e3`` are one; None for what is none."""
    text = b"" if raw is None else bytes(raw)
    try:
        count: float = (int(text) if text.isdigit() else float(text)) if _COUNT.fullmatch(text) else 0
    except ValueError:
        return None
    return int(count) if 0 < count <= _MAX_COUNT and count == int(count) else None
