"""Which fields of a body that is sent back may differ from what was read (contract 2)."""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel

from control.core.refusals import InvalidError

_DERIVED = {
    "effective_models": "the group's or an ancestor's models have changed since they were read; read the group again, "
    "or leave them out"
}
"""What is worked out of other records, and why it may differ from what was read."""


def check(given: BaseModel, kept: BaseModel, free: Collection[str]) -> None:
    """Refuse another value for what never changes; the value that it has may be sent back. Raise InvalidError.

    `free` are the paths of what may change, as `metadata.name`.
    """
    own = kept.model_dump(mode="json", exclude_unset=True)
    _check(given.model_dump(mode="json", exclude_unset=True), own, free, "")


def _check(given: Mapping[str, Any], kept: Mapping[str, Any], free: Collection[str], above: str) -> None:
    for name, value in given.items():
        path = above + name
        if path in free:
            continue
        own = kept[name]
        if isinstance(value, dict) and isinstance(own, dict):
            _check(value, own, free, f"{path}.")
        elif value != own and not (value is None and not above):
            if path in _DERIVED:
                raise InvalidError(f"{path}: are no longer true; {_DERIVED[path]}", param=path, code="stale")
            raise InvalidError(f"{path}: never changes; leave it out, or send what it is", param=path, code="immutable")
