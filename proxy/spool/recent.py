"""The events of a spool that were read last, decoded: metering and intake read the same ones, a moment apart.

Never holds events with one missing between them, nor more than `MOST`.
"""

from collections.abc import Sequence

from schemas.spooled import SpooledEvent

MOST = 2048
"""Twice what either reader takes at once."""


class Recent:
    """Some events whose sequences follow each other."""

    def __init__(self) -> None:
        self._events: list[SpooledEvent] = []

    def take(self, offset: int, limit: int) -> list[SpooledEvent]:
        """Return at most `limit` events from sequence `offset` on; none where it is not here."""
        if not self._events:
            return []
        at = offset - self._events[0].producer.sequence
        return self._events[at : at + limit] if at >= 0 else []

    def keep(self, read: Sequence[SpooledEvent]) -> None:
        """Take events that were read, ascending; what they do not follow, or repeat in part, goes."""
        if not read:
            return
        first, last = read[0].producer.sequence, read[-1].producer.sequence
        if last - first != len(read) - 1:  # a damaged row is missing
            self._events = []
            return
        if self._events and self._events[-1].producer.sequence != first - 1:
            if self._events[-1].producer.sequence >= last:  # the other reader was here meanwhile
                return
            self._events = []
        self._events += read
        del self._events[:-MOST]
