"""Sends a large body slice by slice: the next when the system has taken the one before, and in its turn.

The system copies what it is given while the event loop waits, so a large body goes in slices.
"""

import asyncio
from collections.abc import Callable

from runtime import memory_files
from runtime.memory_files import Content
from runtime.turns import Turns

SLICE_BYTES = 256 * 1024


class Slices:
    """What of one body is not sent yet. `on_sent` is called once all of it has been handed to the system."""

    __slots__ = ("_body", "_holder", "_on_sent", "_sent", "_transport", "_turn", "_turns")

    def __init__(
        self, transport: asyncio.Transport, body: Content, turns: Turns, holder: str, on_sent: Callable[[], None] | None
    ) -> None:
        self._transport = transport
        self._body = body
        self._sent = 0
        self._turns = turns
        self._holder = holder
        self._on_sent = on_sent
        self._turn: asyncio.Future[None] | None = None
        transport.set_write_buffer_limits(high=0)  # so that it resumes when nothing waits to be sent

    @property
    def is_left(self) -> bool:
        """Whether there is some."""
        return self._sent < len(self._body)

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
        self._body, self._on_sent = b"", None
        if self._turn is not None:
            self._turn.cancel()

    def _send(self, turn: asyncio.Future[None]) -> None:
        self._turn = None
        if turn.cancelled() or self._transport.is_closing():
            return
        start, end = self._sent, min(self._sent + SLICE_BYTES, len(self._body))
        self._transport.write(memoryview(self._body)[start:end])
        memory_files.passed(self._body, start, end)
        self._sent = end
        if not self.is_left:
            self._body, self._sent = b"", 0  # else it would be kept until the connection's next request
        if not self._transport.get_write_buffer_size():
            self.go_on()
