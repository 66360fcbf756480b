"""Reads the JSON object of an answer or chunk, and finds its `model` in its bytes.

Never re-serialises any of it.
"""

import re
from contextlib import suppress
from typing import Any

from proxy.dialects import json_members, json_text
from proxy.dialects.json_members import Span
from proxy.dialects.json_text import BOM

_MODEL = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)
_OUTER = (b"model", b"usage", b"x_groq", b"error")


def has_error(answer: dict[str, Any]) -> bool:
    """Say whether a client takes it for an error; to JavaScript's an empty object or list is one too."""
    error = answer.get("error")
    return bool(error) or isinstance(error, dict | list)


def model_spans(text: bytes) -> list[Span]:
    """Return where the model's name stands at the top of an object that is known to have one."""
    first = text.find(b'"model"')
    if first >= 0 and is_only_model(text, first + 1) and (found := _MODEL.match(text, first)) is not None:
        return [found.span(1)]
    try:
        return [span for name, span in json_members.members(text) if name == b"model"]
    except json_members.TooManyMembersError:  # no answer of the API; it passes as it is
        return []


def is_only_model(text: bytes, place: int) -> bool:
    r"""Say whether behind `place` nothing is called `model`; no escape can spell it where none begins with `\u006`."""
    return text.find(b'"model"', place) < 0 and b"\\u006" not in text


def read(text: bytes) -> dict[str, Any] | None:
    """Return the members of an answer or chunk; None where no client takes it for a JSON object."""
    try:
        value = json_text.loads(text)
    except json_text.TooLargeError:
        return _outer_members(text)
    except json_text.UnreadableError:
        return None
    return value if isinstance(value, dict) else None


def _outer_members(text: bytes) -> dict[str, Any] | None:
    """Return the small members of an object that is too large or too deep to be made into values."""
    if not text.removeprefix(BOM).lstrip().startswith(b"{"):
        return None
    read: dict[str, Any] = {}
    with suppress(json_members.TooManyMembersError):
        for name, (start, stop) in json_members.members(text):
            if name in _OUTER:
                with suppress(json_text.UnreadableError):
                    read[name.decode()] = json_text.loads(text[start:stop])
    return read
