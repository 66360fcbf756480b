"""Cuts a stream of server-sent events into the data of its events (HTML Living Standard, server-sent events).

For streams that are written anew. Where bytes pass through, `answers` cuts them and keeps them as they came.
"""

import re

from proxy.dialects.answers import MAX_EVENT_BYTES
from proxy.dialects.json_text import BOM

_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventCutter:
    """Fed bytes, gives the data of each event that is whole; never waits for more than the blank line at its end."""

    def __init__(self) -> None:
        self.too_large = False
        """Whether an event has come that is larger than may be gathered; nothing after it is read."""
        self._partial = bytearray()
        """A line whose end has not come."""
        self._data: list[bytes] = []
        self._size = 0
        self._begun = False
        self._after_cr = False
        """Whether the last line ended in a CR at the end of a chunk, whose LF may still come."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that are whole now; of events without data nothing."""
        if self.too_large:
            return []
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        found: list[bytes] = []
        place = 0
        for end in _LINE_END.finditer(chunk):
            self._partial += chunk[place : end.start()]
            place = end.end()
            self._after_cr = end.group() == b"\r" and place == len(chunk)
            self._end_line(found)
        self._partial += chunk[place:]
        self.too_large = self._size + len(self._partial) > MAX_EVENT_BYTES
        return found

    def _end_line(self, found: list[bytes]) -> None:
        line = bytes(self._partial)
        self._partial.clear()
        if not self._begun:
            self._begun = True
            line = line.removeprefix(BOM)
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
                self._size += len(value)
        elif self._data:
            found.append(b"\n".join(self._data))
            self._data = []
            self._size = 0
