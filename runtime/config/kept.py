"""What was worked out from several things that a feed tells of, kept until one of those changes.

A change costs as much as what depends on it, however much else is kept.
"""

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """Values by key, each with the names of what it was worked out from."""

    def __init__(self) -> None:
        self._values: dict[Key, Value] = {}
        self._sources: dict[Key, tuple[Hashable, ...]] = {}
        self._dependent: dict[Hashable, set[Key]] = {}
        """By source."""
        self.get = self._values.get

    def __len__(self) -> int:
        return len(self._values)

    def keep(self, key: Key, value: Value, sources: Iterable[Hashable]) -> None:
        """Keep a value until `drop` names one of its sources."""
        self._forget(key)
        self._values[key] = value
        named = self._sources[key] = tuple(sources)
        for source in named:
            self._dependent.setdefault(source, set()).add(key)

    def drop(self, source: Hashable) -> None:
        """Let go of what was worked out from `source`."""
        for key in tuple(self._dependent.get(source, ())):
            self._forget(key)

    def clear(self) -> None:
        """Let go of everything."""
        for kept in (self._values, self._sources, self._dependent):
            kept.clear()

    def _forget(self, key: Key) -> None:
        self._values.pop(key, None)
        for source in self._sources.pop(key, ()):
            dependent = self._dependent.get(source)
            if dependent is not None:  # a value may name a source twice
                dependent.discard(key)
                if not dependent:
                    del self._dependent[source]
