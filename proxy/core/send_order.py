"""Decides which events of a spool may be sent now, and up to where all are acknowledged (counting 3).

Never gives out an event while an earlier one of its partition is under way, and never holds more than its bounds.

A partition that is stuck holds the others back only at a bound: MOST_HELD events or MOST_HELD_BYTES read and not
acknowledged, or MOST_AHEAD sequences between the first event that is not acknowledged and the last one read.
"""

from collections import defaultdict, deque
from typing import Generic, TypeVar

MOST_HELD = 10_000
MOST_HELD_BYTES = 32 * 1024 * 1024
MOST_AHEAD = 100_000
MOST_AT_ONCE = 1_000

Item = TypeVar("Item")


class Draining(Generic[Item]):
    """One spool on its way to the topic; `after` is the sequence up to which it is there already."""

    def __init__(self, after: int) -> None:
        self.acknowledged_through = after
        """Every event up to this sequence is acknowledged: the low-water mark."""
        self.read_through = after
        self._waiting: defaultdict[int, deque[tuple[int, int, Item]]] = defaultdict(deque)
        self._under_way: dict[int, list[tuple[int, int, Item]]] = {}
        self._open: deque[int] = deque()
        """What was read and is not below the mark, ascending."""
        self._done: set[int] = set()
        """What of it is acknowledged."""
        self._held = 0
        self._held_bytes = 0

    @property
    def room(self) -> int:
        """How many events may be read now."""
        if self._held_bytes >= MOST_HELD_BYTES:
            return 0
        ahead = self.read_through - self.acknowledged_through
        return max(0, min(MOST_HELD - self._held, MOST_AHEAD - ahead))

    def add(self, partition: int, sequence: int, item: Item, size_bytes: int) -> None:
        """Take an event that was read; sequences ascend."""
        self._waiting[partition].append((sequence, size_bytes, item))
        self._open.append(sequence)
        self._held += 1
        self._held_bytes += size_bytes
        self.read_through = sequence

    def add_acknowledged(self, sequence: int) -> None:
        """Take an event that was read and is known to be there; sequences ascend."""
        self._open.append(sequence)
        self._done.add(sequence)
        self.read_through = sequence
        self._advance()

    def sendable(self) -> list[int]:
        """Return the partitions that have events to send and none under way."""
        return [partition for partition in self._waiting if partition not in self._under_way]

    def take(self, partition: int) -> list[Item]:
        """Return a partition's next events, in order; they are under way until they are acknowledged. Empty: none."""
        waiting = self._waiting.get(partition)
        if waiting is None or partition in self._under_way:
            return []
        taken = [waiting.popleft() for _ in range(min(MOST_AT_ONCE, len(waiting)))]
        if not waiting:
            del self._waiting[partition]
        self._under_way[partition] = taken
        return [item for _, _, item in taken]

    def acknowledge(self, partition: int) -> None:
        """Note that the broker has all of what was taken last of a partition."""
        taken = self._under_way.pop(partition)
        self._held -= len(taken)
        self._held_bytes -= sum([size_bytes for _, size_bytes, _ in taken])
        self._done.update([sequence for sequence, _, _ in taken])
        self._advance()

    def under_way(self, partition: int) -> list[int]:
        """Return the sequences that were taken last of a partition."""
        return [sequence for sequence, _, _ in self._under_way[partition]]

    def _advance(self) -> None:
        while self._open and self._open[0] in self._done:
            self.acknowledged_through = self._open.popleft()
            self._done.remove(self.acknowledged_through)
