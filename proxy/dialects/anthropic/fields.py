"""Reads members of a decoded request, and refuses with a message that names the one that is wrong."""

from collections.abc import Collection
from typing import Any, NoReturn

from proxy.dialects.chat import Invalid


class UntranslatableError(Exception):
    """A request cannot be expressed in the Messages API."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.invalid = Invalid(message, param)


def refuse(param: str, why: str) -> NoReturn:
    """Raise RefusedError: "Field `param` `why`."."""
    raise UntranslatableError(param, f"Field {param} {why}.")


def unsupported(param: str) -> NoReturn:
    """Raise RefusedError for what has no counterpart."""
    refuse(param, "is not supported by this model's provider")


def mapping(value: Any, param: str) -> dict[str, Any]:
    """Return an object. Raise RefusedError."""
    return value if isinstance(value, dict) else refuse(param, "must be an object")


def sequence(value: Any, param: str) -> list[Any]:
    """Return a list. Raise RefusedError."""
    return value if isinstance(value, list) else refuse(param, "must be a list")


def text(value: Any, param: str) -> str:
    """Return a string. Raise RefusedError."""
    return value if isinstance(value, str) else refuse(param, "must be a string")


def only(members: dict[str, Any], known: Collection[str], param: str) -> None:
    """Raise RefusedError for a member that is not `known`, unless it is null."""
    for name, value in members.items():
        if value is not None and name not in known:
            unsupported(f"{param}.{name}")


def is_blank(value: str) -> bool:
    """Say whether a text block of it would be refused: only blanks, of whatever width (U+200B as well)."""
    return not value.strip().strip("\u200b\u200c\u200d\u2060\ufeff \t\r\n")
