"""Finds members of a request that name objects at the upstream: one credential serves all of a lab's customers, so one
customer could name another's stored response, file or conversation.

Repeats count, and names in another case (`request_members.folded`): servers differ in which of them they read.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from proxy.dialects import json_text
from proxy.dialects.request_members import folded

_NAMES = (
    "previous_response_id",
    "conversation",
    "file_id",
    "file_ids",
    "vector_store_ids",
    "container",
    "fallbacks",
)
_REFERENCE = "item_reference"
"""A type of input items. An item that has an id, and neither a type nor a content, is one too
(https://platform.openai.com/docs/api-reference/responses/create)."""
_TEMPLATE = "prompt"
"""An object with an `id`: a stored template. A text of completions is none."""
_INPUT = "input"
_WRITTEN_BY_CLIENTS = frozenset(
    ("metadata", "parameters", "schema", "input_schema", "json_schema", _INPUT, "arguments", "logit_bias")
)
"""What a tool takes, or a client notes: their names are the client's own. Under `input` the top's is looked into."""
_SOUGHT = tuple(name.encode() for name in (*_NAMES, _REFERENCE))
_SPELLED = re.compile(rb'"(?:(?=[cfipv])(?:%b)"|prompt"[ \t\r\n]*+:[ \t\r\n]*+\{)' % b"|".join(_SOUGHT))
_ODD = ("\u017f".encode(), "\u212a".encode())
"""The long s and the Kelvin sign, which fold to letters."""
_HIDDEN = re.compile(rb"\\u(?:00[4-7]|017f|212a)")
"""A letter or underscore written as an escape, as no encoder does: it may hide a name."""

_Object = tuple[tuple[str, Any], ...]
"""All members in their order; lists are lists."""


def named(body: bytes) -> str | None:
    """Return the first member that names an object at the upstream; None where there is none, or no JSON."""
    text = body.lower()
    if not _may_name(text):
        return None
    try:
        asked = _members(body)
    except json_text.TooLargeError:  # it cannot be looked into, so what may be in it is in it
        return next((name.decode() for name in _SOUGHT if name in text), _NAMES[0])
    except json_text.UnreadableError:
        return None
    if not isinstance(asked, tuple):
        return None
    if any(folded(name) == _TEMPLATE and _has_id(value) for name, value in asked):
        return "prompt.id"
    return next(_within(asked), None)


def _may_name(text: bytes) -> bool:
    """Say whether a body in lower case may hold one of the names."""
    return (
        _SPELLED.search(text) is not None
        or (text.find(b'"input"') >= 0 and text.find(b'"id"') >= 0)
        or (text.find(b"\\u") >= 0 and _HIDDEN.search(text) is not None)
        or (not text.isascii() and any(odd in text for odd in _ODD))
    )


def _members(body: bytes) -> Any:
    """Return the value of a text, with every member of its objects. Raise UnreadableError, TooLargeError."""
    if json_text.is_crowded(body):
        raise json_text.TooLargeError
    try:
        return json.loads(body, object_pairs_hook=tuple, parse_int=len, parse_float=len)  # no number is looked at
    except RecursionError:
        raise json_text.TooLargeError from None
    except ValueError:
        raise json_text.UnreadableError from None


def _within(asked: _Object) -> Iterator[str]:
    left: list[tuple[Any, bool]] = [(asked, False)]
    while left:
        one, is_input_item = left.pop()
        if isinstance(one, list):
            left += [(item, is_input_item) for item in reversed(one)]
        elif isinstance(one, tuple):
            yield from _of_object(one, is_input_item=is_input_item)
            for name, member in one:
                is_input = one is asked and folded(name) == _INPUT
                if name not in _WRITTEN_BY_CLIENTS or is_input:
                    left.append((member, is_input))


def _of_object(one: _Object, *, is_input_item: bool) -> Iterator[str]:
    kinds = [value for name, value in one if folded(name) == "type"] or [None]
    is_bare = is_input_item and None in kinds and _has_id(one) and not any(folded(name) == "content" for name, _ in one)
    if _REFERENCE in kinds or is_bare:
        yield _REFERENCE
    yield from (folded(name) for name, value in one if value is not None and folded(name) in _NAMES)


def _has_id(value: Any) -> bool:
    return isinstance(value, tuple) and any(member is not None and folded(name) == "id" for name, member in value)
