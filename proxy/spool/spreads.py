"""Over how many lanes the rows of a busy tree lie, from which row on: each row's lane stays the same (counting 6).

Never changes a row's lane once it has a sequence: what a former process has published in a lane is looked for there.
"""

import os
from collections.abc import Iterator
from pathlib import Path

FILE = "spreads"
MOST = 1000
"""Trees whose rows may lie in several lanes; what is said of further ones is not followed."""


class Spreads:
    """Those of one spool, kept in a file beside its segments. Changed by one thread, read by several."""

    def __init__(self, folder: Path) -> None:
        """Read what is kept; a line that is torn ends it."""
        self._path = folder / FILE
        self._trees: dict[str, tuple[tuple[int, int], ...]] = {}
        """By the tree's root: from which sequence on, over how many lanes; ascending."""
        for root, begin, lanes in _read(self._path):
            self._trees[root] = (*self._trees.get(root, ()), (begin, lanes))

    def __contains__(self, root: str) -> bool:
        return root in self._trees

    def __bool__(self) -> bool:
        return bool(self._trees)

    def lane(self, root: str, home: int, partitions: int, sequence: int) -> int:
        """Return the lane of a row whose tree lies in `home`, where it lies in one alone."""
        for begin, lanes in reversed(self._trees.get(root, ())):
            if sequence >= begin:
                return (home + sequence % lanes) % partitions
        return home

    def spread(self, root: str, lanes: int, begin: int, oldest: int) -> None:
        """Let the rows of a tree lie over `lanes` lanes from the sequence `begin` on. Raise OSError.

        What only rows below `oldest` need is forgotten. Written to the disk for good: rare, and some milliseconds.
        """
        known = self._trees.get(root, ())
        if lanes == (known[-1][1] if known else 1) or (not known and len(self._trees) >= MOST):
            return
        trees = {name: _needed(entries, oldest) for name, entries in self._trees.items()}
        trees[root] = (*(entry for entry in trees.get(root, ()) if entry[0] < begin), (begin, lanes))
        kept = {name: entries for name, entries in trees.items() if entries != ((entries[0][0], 1),)}
        fresh = self._path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            file.writelines(f"{name} {at} {over}\n" for name, entries in kept.items() for at, over in entries)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        self._trees = kept


def _needed(entries: tuple[tuple[int, int], ...], oldest: int) -> tuple[tuple[int, int], ...]:
    """Drop all but the last of the entries that begin at or below `oldest`."""
    passed = [entry for entry in entries if entry[0] <= oldest]
    return (*passed[-1:], *(entry for entry in entries if entry[0] > oldest))


def _read(path: Path) -> Iterator[tuple[str, int, int]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        parts = line.split()
        if len(parts) != 3 or not (parts[1].isdecimal() and parts[2].isdecimal() and int(parts[2])):
            return
        yield parts[0], int(parts[1]), int(parts[2])
