"""Where a lane has the rows of a spool, as far as a later process must know it (counting 1).

Never names a place below the true one: a row's offset is that of the first entry of its lane at or above the row.
"""

from bisect import bisect_left
from collections.abc import Iterable
from threading import Lock
from typing import NamedTuple

_MOST = 1000
"""Entries of one lane, of a second each; beyond it each second one goes, and its rows go by the next."""


class Entry(NamedTuple):
    """All rows of a lane up to the sequence `through` (inclusive) lie at or below `offset`."""

    through: int
    offset: int


class Placed:
    """The entries of one spool, by lane. Noted by one thread, and saved by another."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        """Read what `saved` has written; a line that is torn ends it."""
        self._lanes: dict[int, list[Entry]] = {}
        self._saved: dict[int, Entry] = {}
        """The newest entry of each lane that is saved: the next one does not replace it."""
        self._lock = Lock()
        for line in lines:
            parts = line.split()
            if len(parts) != 3:
                break
            lane, through, offset = map(int, parts)
            self._lanes.setdefault(lane, []).append(Entry(through, offset))
        self._saved = {lane: entries[-1] for lane, entries in self._lanes.items()}
        self.through = max((entry.through for entry in self._saved.values()), default=0)
        """The highest sequence that any entry names."""
        self.changes = 0
        """Grows with each note."""

    def note(self, lane: int, through: int, offset: int) -> None:
        """Note that a lane has all its rows up to `through`, at `offset` or below; both ascend."""
        with self._lock:
            entries = self._lanes.setdefault(lane, [])
            if entries and entries[-1] is not self._saved.get(lane):
                entries.pop()
            entries.append(Entry(through, offset))
            if len(entries) > _MOST:
                entries[:-1] = entries[1:-1:2]
            self.through = max(self.through, through)
            self.changes += 1

    def offset_of(self, lane: int | str, sequence: int) -> int | None:
        """Return an offset at or above that of a lane's row; None where the row is not known to be published."""
        with self._lock:
            entries = self._lanes.get(lane) if isinstance(lane, int) else None
            if not entries or entries[-1].through < sequence:
                return None
            return entries[bisect_left(entries, sequence, key=lambda entry: entry.through)].offset

    def forget(self, before: int) -> None:
        """Drop what only rows below sequence `before` need."""
        with self._lock:
            for lane, entries in list(self._lanes.items()):
                gone = bisect_left(entries, before, key=lambda entry: entry.through)
                if gone == len(entries):
                    del self._lanes[lane]
                    self._saved.pop(lane, None)
                else:
                    del entries[:gone]

    def saved(self) -> str:
        """Return what is to be kept, a line for each entry."""
        with self._lock:
            self._saved = {lane: entries[-1] for lane, entries in self._lanes.items()}
            return "".join(
                [f"{lane} {through} {offset}\n" for lane, entries in self._lanes.items() for through, offset in entries]
            )
