"""Keeps the rate windows in this process's memory: the proxy's `Windows` port (contract 3.1).

`reserve` is a coroutine because Redis has to be awaited; here it never suspends. An adapter
reads its own clock, here a monotonic one, there Redis' `TIME`, so that the admission and the settlement of a request
are always read from the same one, and a wall clock that stands still after a step back does not stop the windows.
"""

import time
from collections.abc import Callable, Sequence

from proxy.limits import concurrency, windows


class MemoryWindows:
    """Rate windows of one event loop. `clock_s` gives seconds, and must not step back far: then windows stand still."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._windows = windows.RateWindows()

    async def reserve(
        self, chain: windows.RateChain, tokens: int, output_tokens: int = 0
    ) -> windows.Reservation | windows.Refusal:
        """Take one request and `tokens` (estimated) from every limit of the chain, or nothing from any."""
        return self.reserve_at_once(chain, tokens, output_tokens)

    def reserve_at_once(
        self, chain: windows.RateChain, tokens: int, output_tokens: int = 0
    ) -> windows.Reservation | windows.Refusal:
        """Do the same: nobody has to be asked."""
        return self._windows.reserve(chain.slug, chain.limits, tokens, self._clock_s(), output_tokens)

    def settle(self, reservation: windows.Reservation, tokens: int, output_tokens: int = 0) -> None:
        """Replace the estimate by what was used. A second end of a reservation is ignored."""
        self._windows.settle(reservation, tokens, self._clock_s(), output_tokens)

    def release(self, reservation: windows.Reservation) -> None:
        """Give the tokens back, never the place in a REQUEST window: the upstream did not answer with 2xx."""
        self._windows.release(reservation, self._clock_s())

    def forget_idle(self) -> None:
        """Drop some of the counters that count nothing; to be called every few seconds."""
        self._windows.forget_idle(self._clock_s())


class MemoryPlaces:
    """The places among requests in flight that this proxy alone counts: the `ConcurrencyLimits` port."""

    def __init__(self) -> None:
        self._own = concurrency.Concurrency()

    def __len__(self) -> int:
        return len(self._own)

    async def reserve(
        self, root_group: str, slug: str, limits: Sequence[windows.WindowLimit]
    ) -> concurrency.HeldPlaces | windows.Refusal:
        """Take a place in every limit of a request, or in none."""
        return self._own.reserve(slug, limits)

    def release(self, places: concurrency.HeldPlaces) -> None:
        """Give the places back, once."""
        self._own.release(places)
