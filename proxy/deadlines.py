"""Bounds every wait of one request, and how long its upstream is read on once its client has gone (contract 3).

Never decides what a request that ran out of patience costs: that is the flow's matter.
"""

import asyncio
import math
from types import TracebackType
from typing import Self


class Drains:
    """How long, and how many at once, upstreams are read on for clients that have gone. Times in seconds."""

    def __init__(self, drain_s: float, most: int) -> None:
        self._drain_s = drain_s
        self._most = most
        self.open = 0

    def begin(self) -> float:
        """Return the seconds that the next one has: none where too many are open."""
        if self.open >= self._most:
            return 0.0
        self.open += 1
        return self._drain_s


class Deadline:
    """A time bound around one request that moves with each thing expected.

    When it is over, the body of its ``async with`` is cancelled and TimeoutError raised behind it.
    """

    def __init__(self, drains: Drains) -> None:
        self.gone = False
        """Whether the client has gone away."""
        self.for_client = False
        """Whether it is the client that is waited for, to take what it was sent."""
        self._drains = drains
        self._draining = False
        self._over = False
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._latest = math.inf
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_clients_fault(self) -> bool:
        """Whether it is the client's doing, if it is over now."""
        return self.gone or self.for_client

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        if self._draining:
            self._drains.open -= 1
        await self._timeout.__aexit__(kind, error, trace)

    def expect(self, within_s: float, *, for_client: bool = False) -> None:
        """Bound the next wait."""
        self.for_client = for_client
        self._due = min(self._loop.time() + within_s, self._latest)
        if self._timer is None or self._due < self._timer.when():  # else the timer finds out when it is over
            self._arm()

    def client_gone(self) -> None:
        """Note that the client has gone: from now on only the drain's time is left."""
        if self.gone or self._over:
            return
        self.gone = True
        open_before = self._drains.open
        self._latest = self._loop.time() + self._drains.begin()
        self._draining = self._drains.open > open_before
        self._due = min(self._due, self._latest)
        self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        if self._loop.time() < self._due:
            self._arm()
        else:
            self._timeout.reschedule(self._due)
