"""Lets a connection's transport read or not: paused by whoever reads it, held after each large piece until its turn.

Each gets a turn for a piece: however many connections send as fast as they can, those with little to send are read in
each round of the event loop.
"""

import asyncio

from runtime.turns import Turns


class SocketIntake:
    """The reading side of one connection."""

    __slots__ = ("_transport", "_turn", "_turns", "is_paused")

    def __init__(self, transport: asyncio.Transport, turns: Turns) -> None:
        self._transport = transport
        self._turns = turns
        self._turn: asyncio.Future[None] | None = None
        """Pending while what comes next has to wait for its turn."""
        self.is_paused = False
        """Whether nothing is to be read until `resume`."""

    def pause(self) -> None:
        """Read no further until `resume`."""
        if not self.is_paused:
            self.is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, in turn."""
        if self.is_paused:
            self.is_paused = False
            if self._turn is None:
                self._transport.resume_reading()

    def next_in_turn(self) -> None:
        """Have what comes next wait for its turn."""
        if self._turn is None:
            self._transport.pause_reading()
            self._turn = self._turns.ask()
            self._turn.add_done_callback(self._go_on)

    def close(self) -> None:
        """Drop the turn: nothing comes any more."""
        if self._turn is not None:
            self._turn.cancel()

    def _go_on(self, turn: asyncio.Future[None]) -> None:
        self._turn = None
        if not (turn.cancelled() or self.is_paused or self._transport.is_closing()):
            self._transport.resume_reading()
