"""Finds members of a request that name objects at the upstream: one credential serves all of a lab's customers, so one
customer could name another's stored response, file or conversation.
"""

import re
from collections.abc import Iterator
from typing import Any

from proxy.dialects import json_text

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
_TEMPLATE = "prompt"
"""An object with an `id`: a stored template. A text of completions is none."""
_WRITTEN_BY_CLIENTS = frozenset(
    ("metadata", "parameters", "schema", "input_schema", "json_schema", "input", "arguments", "logit_bias")
)
"""What a tool takes, or a client notes: their names are the client's own. Under `input` the top's is looked into."""
_SOUGHT = tuple(name.encode() for name in (*_NAMES, _REFERENCE))
_SPELLED = re.compile(rb'"(?:(?=[cfipv])(?:%b)"|prompt"[ \t\r\n]*+:[ \t\r\n]*+\{)' % b"|".join(_SOUGHT))
_HIDDEN = re.compile(rb"\\u00(?:5[fF]|[67][0-9a-fA-F])")
"""A letter or underscore written as an escape, as no encoder does: it may hide a name."""


def named(body: bytes) -> str | None:
    """Return the first member that names an object at the upstream; None where there is none, or no JSON."""
    if _SPELLED.search(body) is None and (b"\\u00" not in body or _HIDDEN.search(body) is None):
        return None
    try:
        asked = json_text.loads(body)
    except json_text.TooLargeError:  # it cannot be looked into, so what may be in it is in it
        return next((name.decode() for name in _SOUGHT if name in body), _NAMES[0])
    except json_text.UnreadableError:
        return None
    if not isinstance(asked, dict):
        return None
    template = asked.get(_TEMPLATE)
    if isinstance(template, dict) and template.get("id") is not None:
        return "prompt.id"
    return next(_within(asked, is_top=True), None)


def _within(value: Any, *, is_top: bool = False) -> Iterator[str]:
    left = [(value, is_top)]
    while left:
        one, at_top = left.pop()
        if isinstance(one, list):
            left += [(item, False) for item in reversed(one)]
        elif isinstance(one, dict):
            yield from (name for name in _NAMES if one.get(name) is not None)
            if one.get("type") == _REFERENCE:
                yield _REFERENCE
            left += [
                (member, False)
                for name, member in one.items()
                if name not in _WRITTEN_BY_CLIENTS or (at_top and name == "input")
            ]
