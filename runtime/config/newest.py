"""The newest version of each thing that a feed tells of (counting 8).

Never lets an older version back in, also not of a thing that is gone.
"""

from typing import Generic, TypeVar

Value = TypeVar("Value")


class Newest(Generic[Value]):
    """Values by id. What is gone keeps its version."""

    def __init__(self) -> None:
        self._versioned: dict[str, tuple[int, Value | None]] = {}

    def get(self, id_: str) -> Value | None:
        """Return the value; None where it is gone or was never there."""
        found = self._versioned.get(id_)
        return found[1] if found else None

    def is_new(self, id_: str, version: int) -> bool:
        """Say whether `version` is above the one that is held."""
        known = self._versioned.get(id_)
        return known is None or version > known[0]

    def put(self, id_: str, version: int, value: Value | None) -> bool:
        """Take a newer value, or end (None); say whether it was newer."""
        if not self.is_new(id_, version):
            return False
        self._versioned[id_] = (version, value)
        return True
