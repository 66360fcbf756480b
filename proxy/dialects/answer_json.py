"""Reads the JSON object of an answer or chunk, and finds its `model` in its bytes.

None of it is serialised again.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import Raw

from proxy.dialects import json_members, json_text
from proxy.dialects.json_members import MISSING, Span
from proxy.dialects.json_text import BOM

UNREAD = object()
"""Stands for choices that were not looked into."""

_MODEL = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
_CONSTANT = re.compile(rb"-?(?:NaN|Infinity)\b")
_MOST_WALKED = 50_000
"""Of objects and lists; one with more is not walked through, which takes a microsecond or two for each."""


class _Outer(msgspec.Struct):
    """The small members of an answer, undecoded."""

    model: Raw = MISSING
    usage: Raw = MISSING
    x_groq: Raw = MISSING
    error: Raw = MISSING


_outer_decoder = msgspec.json.Decoder(_Outer)


def has_error(answer: dict[str, Any]) -> bool:
    """Say whether a client takes it for an error; to JavaScript's an empty object or list is one too."""
    error = answer.get("error")
    return bool(error) or isinstance(error, dict | list)


def model_spans(text: bytes) -> list[Span]:
    """Return where the model's name stands at the top of an object that is known to have one."""
    first = text.find(b'"model"')
    if first >= 0 and is_only_model(text, first + 1) and (found := _MODEL.match(text, first)) is not None:
        return [found.span(1)]
    return [span for name, span in _members(text) if name == b"model"]


def inner_model_spans(text: bytes, outer: bytes) -> list[Span]:
    """Return where the model's name stands in the member `outer` of an object, which is an object itself."""
    return [
        (start + first, start + last)
        for name, (start, stop) in _members(text)
        if name == outer and text[start : start + 1] == b"{"
        for inner, (first, last) in _members(text[start:stop])
        if inner == b"model"
    ]


def is_only_model(text: bytes, place: int) -> bool:
    r"""Say whether behind `place` nothing is called `model`; no escape can spell it where none begins with `\u006`."""
    return text.find(b'"model"', place) < 0 and text.find(b"\\u006") < 0


def read(text: bytes) -> dict[str, Any] | None:
    """Return the members of an answer or chunk; None where no client takes it for a JSON object."""
    try:
        value = json_text.loads(text)
    except json_text.TooLargeError:
        return _outer_members(text)
    except json_text.UnreadableTextError:
        return None
    return value if isinstance(value, dict) else None


def _outer_members(text: bytes) -> dict[str, Any] | None:
    """Return the small members of an object that is too large or too deep to be made into values.

    What JavaScript's reader or ours would refuse of the rest is put up with: it is not looked into.
    """
    text = text.removeprefix(BOM)
    if not text.lstrip().startswith(b"{"):
        return None
    found: Iterable[tuple[str, bytes]]
    try:
        is_odd = b"NaN" in text or b"Infinity" in text
        outer = _outer_decoder.decode(_CONSTANT.sub(_zero, text) if is_odd else text)
        found = [(name, bytes(getattr(outer, name))) for name in outer.__struct_fields__]
    except (ValueError, RecursionError):
        found = [(name.decode("ascii", "replace"), text[start:stop]) for name, (start, stop) in _members(text)]
    read: dict[str, Any] = {"choices": UNREAD}
    for name, value in found:
        if name in _Outer.__struct_fields__:
            with suppress(json_text.UnreadableTextError):
                read[name] = json_text.loads(value)
    return read


def _zero(constant: re.Match[bytes]) -> bytes:
    return b"0".ljust(len(constant.group()))


def _members(text: bytes) -> list[tuple[bytes, Span]]:
    """Return the members of an object and their places; none where it has too many, or too much in them."""
    if text.count(b"{") + text.count(b"[") > _MOST_WALKED:
        return []
    try:
        return list(json_members.members(text))
    except json_members.TooManyMembersError:  # no answer of the API; it passes as it is
        return []
