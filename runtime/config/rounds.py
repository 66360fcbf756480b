"""The rounds of a relay: when the next one begins, and who waits for its end."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

Result = TypeVar("Result")


class Rounds:
    """One relay's rounds. Each takes what was committed before it began."""

    def __init__(self) -> None:
        self._poked = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []

    def poke(self) -> None:
        """Begin the next round at once. Called on the event loop."""
        self._poked.set()

    async def whole(self, within_s: float) -> None:
        """Return when a round that began after this call has ended, at the latest after `within_s`."""
        ended = asyncio.get_running_loop().create_future()
        self._waiting.append(ended)
        self.poke()
        await asyncio.wait({ended}, timeout=within_s)
        if not ended.done():
            ended.cancel()

    async def take(self, step: Callable[[], Awaitable[Result]]) -> Result:
        """Run one round; return what `step` returns. Where it fails, those who wait wait for the next one."""
        self._poked.clear()
        waiting, self._waiting = self._waiting, []
        try:
            result = await step()
        except BaseException:
            self._waiting += [each for each in waiting if not each.done()]
            raise
        for each in waiting:
            if not each.done():
                each.set_result(None)
        return result

    async def rest(self, at_most_s: float) -> None:
        """Return when somebody pokes, at the latest after `at_most_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                await self._poked.wait()
