"""Reads a record that control wrote at a newer version: what this version does not know is left out, and told.

Never drops a change for one limit of an unknown type: the group's other limits, and its end, hold all the same.
"""

import copy
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from schemas.config import ConfigChange

_LISTS = frozenset({"rate_limits", "usage_limits"})
"""Lists of which one entry may be left out: the others say the same without it."""


class LeftOutError(Exception):
    """What a record was read without: the names of its parts."""


def read(model: type[ConfigChange], body: dict[str, Any], error: ValidationError) -> tuple[ConfigChange, LeftOutError]:
    """Return the change without what `model` refused in `body`, and what that was.

    Raise `error` where the record does not hold without it: where it is no limit, nor a member that is not known.
    """
    refused = error.errors(include_url=False, include_input=False)
    parts = {_part(tuple(found["loc"]), found["type"]) for found in refused}
    if None in parts:
        raise error
    left = copy.deepcopy(body)
    # from the end, so that no place moves before it is left out
    for part in sorted((part for part in parts if part is not None), key=_descending, reverse=True):
        _leave_out(left, part)
    named = "; ".join(sorted(f"{body.get('id')}: {'.'.join(map(str, part))}" for part in parts if part is not None))
    return model.model_validate(left), LeftOutError(named)


def _part(place: Sequence[int | str], kind: str) -> tuple[int | str, ...] | None:
    """Return what to leave out for one error: the limit that it lies in, or the member that is not known."""
    for depth, step in enumerate(place[:-1]):
        if step in _LISTS and isinstance(place[depth + 1], int):
            return tuple(place[: depth + 2])
    return tuple(place) if kind == "extra_forbidden" else None


def _descending(part: tuple[int | str, ...]) -> tuple[tuple[int, str], ...]:
    return tuple((step, "") if isinstance(step, int) else (-1, step) for step in part)


def _leave_out(body: Any, part: tuple[int | str, ...]) -> None:
    for step in part[:-1]:
        body = body[step]
    del body[part[-1]]
