"""Which partitions stand still although there is something to count (counting 4: the watchdog).

Never calls a partition stalled while nobody could have moved it: `forgive` says that a service was away, or that the
partition was assigned only now.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple


class Log(NamedTuple):
    """One partition as it was found: its committed position, and where its log begins and ends (exclusive)."""

    position: int | None
    begin: int
    end: int

    @property
    def lag(self) -> int:
        """How many offsets are still to count."""
        return max(0, self.end - (self.begin if self.position is None else self.position))


class Backlog:
    """Looks at partitions again and again; times are seconds of any steady clock. For one thread."""

    def __init__(self) -> None:
        self._positions: dict[int, int | None] = {}
        self._moved_at: dict[int, float] = {}

    def look(self, now_s: float, logs: Mapping[int, Log], busy_at: Mapping[int, float], bound_s: float) -> list[int]:
        """Return the partitions that have a lag and did not move for `bound_s`.

        `busy_at` says when work on a partition was tried last: who tries is slow or waits, but does not stand still.
        """
        for partition, log in logs.items():
            is_new = partition not in self._moved_at
            if is_new or not log.lag or self._positions[partition] != log.position:
                self._moved_at[partition] = now_s
                self._positions[partition] = log.position
        for partition in self._moved_at.keys() - logs.keys():
            del self._moved_at[partition], self._positions[partition]
        return sorted(
            partition
            for partition, moved_at in self._moved_at.items()
            if now_s - max(moved_at, busy_at.get(partition, moved_at)) > bound_s
        )

    def forgive(self, partitions: Collection[int] | None = None) -> None:
        """Begin anew with `partitions`, or with all: nobody could have moved them."""
        for partition in list(self._moved_at) if partitions is None else partitions:
            self._moved_at.pop(partition, None)
            self._positions.pop(partition, None)
