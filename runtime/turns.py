"""Turns of the event loop for what is always ready: of all who take them, one goes on in every few rounds of the loop.

Costs whoever takes one a future, and a round of the loop little more than nothing. Without it each of many streams that
are always ready goes on in every round, and a request that needs twenty rounds waits for twenty pieces of each of them.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

ROUNDS = 8
"""Of the loop, for one turn: a plain request needs about twenty, and so waits for two or three turns of others."""
AT_LATEST_S = 0.004
"""From one turn to the next where rounds are long: those in the line have a share of a busy loop too."""


class Turns:
    """A line for each holder, first come first served; the holders go on in turn. For one event loop."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        """Of those alone who wait; whoever goes on next is the first."""
        self._monotonic = monotonic
        self._is_moving = False
        self._rounds = 0
        """Since the last turn."""
        self._last_s = 0.0

    async def take(self, holder: str = "") -> None:
        """Return in a later round of the event loop, in which nobody else goes on. May be cancelled.

        However many of one holder wait, one of another waits for one of them.
        """
        await self.ask(holder)

    def ask(self, holder: str = "") -> asyncio.Future[None]:
        """Return what is done when `take` would return. Whoever cancels it gives the turn up."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._lines.setdefault(holder, deque()).append(turn)
        if not self._is_moving:
            self._is_moving = True
            loop.call_soon(self._move, loop)
        return turn

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        self._rounds += 1
        if self._rounds >= ROUNDS or self._monotonic() - self._last_s >= AT_LATEST_S:
            self._is_moving = self._let_one_go_on()
        if self._is_moving:
            loop.call_soon(self._move, loop)

    def _let_one_go_on(self) -> bool:
        """Return False where nobody is in a line."""
        while self._lines:
            holder = next(iter(self._lines))
            line = self._lines.pop(holder)
            turn = line.popleft()
            if line:
                self._lines[holder] = line  # behind the others
            if not turn.done():  # else whoever took it was cancelled
                turn.set_result(None)
                self._rounds, self._last_s = 0, self._monotonic()
                return True
        return False
