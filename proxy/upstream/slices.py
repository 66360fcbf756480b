"""Sends a large body slice by slice: the next when the system has taken the one before, and in its turn.

The system copies what it is given while the event loop waits, so a large body goes in slices.
"""

import asyncio
from collections.abc import Callable

from runtime.memory_files import Content
from runtime.turns import Turns

SLICE_BYTES = 256 * 1024
_NOTHING = memoryview(b"")


class Slices:
    """What of one body is not sent yet. `on_sent` is called once all of it has been handed to the system."""

    __slots__ = ("_holder", "_left", "_on_sent", "_transport", "_turn", "_turns")

    def __init__(
        self, transport: asyncio.Transport, body: Content, turns: Turns, holder: str, on_sent: Callable[[], None] | None
    ) -> None:
        self._transport = transport
        self._left = memoryview(body)
        self._turns = turns
        self._holder = holder
        self._on_sent = on_sent
        self._turn: asyncio.Future[None] | None = None
        transport.set_write_buffer_limits(high=0)  # so that it resumes when nothing waits to be sent

    @property
    def is_left(self) -> bool:
        """Whether there is some."""
        return len(self._left) > 0

    def go_on(self) -> None:
        """Send the next slice in its turn: the system has taken what was written before."""
        if self._turn is not None:
            return
        if self.is_left:
            self._turn = self._turns.ask(self._holder)
            self._turn.add_done_callback(self._send)
        elif self._on_sent is not None:
            on_sent, self._on_sent = self._on_sent, None
            on_sent()

    def close(self) -> None:
        """Send no more."""
        self._left, self._on_sent = _NOTHING, None
        if self._turn is not None:
            self._turn.cancel()

    def _send(self, turn: asyncio.Future[None]) -> None:
        self._turn = None
        if turn.cancelled() or self._transport.is_closing():
            return
        self._transport.write(self._left[:SLICE_BYTES])
        rest = self._left[SLICE_BYTES:]
        self._left = rest or _NOTHING  # else it would keep the body
        if not self._transport.get_write_buffer_size():
            self.go_on()
