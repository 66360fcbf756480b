"""Turns of the event loop for what is always ready: of all who take them, one goes on in each round of the loop.

Costs whoever takes one a future. Without it each of many streams that are always ready goes on in every round, and a
request that needs twenty rounds waits for twenty pieces of each of them.
"""

import asyncio
from collections import deque


class Turns:
    """A line for each holder, first come first served; the holders go on in turn. For one event loop."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[asyncio.Future[None]]] = {}
        """Of those alone who wait; whoever goes on next is the first."""
        self._is_moving = False

    async def take(self, holder: str = "") -> None:
        """Return in a later round of the event loop, in which nobody else goes on. May be cancelled.

        However many of one holder wait, one of another waits for one of them.
        """
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._lines.setdefault(holder, deque()).append(turn)
        if not self._is_moving:
            self._is_moving = True
            loop.call_soon(self._move, loop)
        await turn

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._lines:
            holder = next(iter(self._lines))
            line = self._lines.pop(holder)
            turn = line.popleft()
            if line:
                self._lines[holder] = line  # behind the others
            if not turn.done():  # else whoever took it was cancelled
                turn.set_result(None)
                loop.call_soon(self._move, loop)
                return
        self._is_moving = False
