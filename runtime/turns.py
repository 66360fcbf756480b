"""Turns of the event loop for what is always ready: of all who take them, one goes on in each round of the loop.

Costs whoever takes one a future. Without it each of many streams that are always ready goes on in every round, and a
request that needs twenty rounds waits for twenty pieces of each of them.
"""

import asyncio
from collections import deque


class Turns:
    """A line, first come first served. For one event loop."""

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[None]] = deque()
        self._is_moving = False

    async def take(self) -> None:
        """Return in a later round of the event loop, in which nobody else of the line goes on. May be cancelled."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._line.append(turn)
        if not self._is_moving:
            self._is_moving = True
            loop.call_soon(self._move, loop)
        await turn

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():  # else whoever took it was cancelled
                turn.set_result(None)
                loop.call_soon(self._move, loop)
                return
        self._is_moving = False
