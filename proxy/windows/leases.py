"""Keeps the places among requests in flight in Redis, for all proxies: a `ConcurrencyLimits` (contract 2.2, ADR 39).

Never holds a place for good: each is a lease of 30 s, renewed while its request is in flight, so that what a proxy held
that died is free again. While Redis is away the proxy counts its own requests alone, those admitted before included.
"""

import asyncio
import os
from collections.abc import Sequence

from proxy.limits import concurrency
from proxy.limits.concurrency import Concurrency
from proxy.limits.windows import Refusal, WindowLimit
from proxy.windows import redis, scripts
from proxy.windows.memory import MemoryPlaces, MemoryWindows
from proxy.windows.redis import SharedWindows, key_of
from runtime import loops
from runtime.redis import RedisError
from runtime.settings import Settings

LEASE_S = 30.0
RENEWED_EVERY_S = 10.0
"""So that two renewals may be lost."""
_LEASE_US = round(LEASE_S * 1_000_000)


class _Leased(list[tuple[str, str]]):
    """The places of one request here, and what they are called in Redis."""

    def __init__(self, places: Sequence[tuple[str, str]], keys: Sequence[str], member: str) -> None:
        super().__init__(places)
        self.keys = keys
        self.member = member


class SharedPlaces:
    """The places of all proxies of one installation, over the connection of their rate windows."""

    def __init__(self, shared: SharedWindows) -> None:
        self.windows = shared
        self._own = Concurrency()
        self._held: dict[str, _Leased] = {}
        self._name = os.urandom(8).hex()
        self._count = 0

    def __len__(self) -> int:
        return len(self._own)

    async def reserve(
        self, root_group: str, slug: str, limits: Sequence[WindowLimit]
    ) -> concurrency.HeldPlaces | Refusal:
        """Take a place in every limit of a request, or in none."""
        self._count += 1
        member = f"{self._name}-{self._count}"
        keys = [key_of(self.windows.prefix, root_group, slug, limit) for limit in limits]
        asked: asyncio.Future[int | RedisError] = asyncio.get_running_loop().create_future()

        def answered(reply: int | RedisError) -> None:
            if not asked.done():
                asked.set_result(reply)
            elif reply == 0:  # too late: nobody waits any more
                self.windows.run(scripts.LEAVE, keys, (member,))

        thresholds = [limit.threshold for limit in limits]
        if not self.windows.run(scripts.TAKE, keys, (_LEASE_US, member, *thresholds), answered):
            return self._reserve_own(slug, limits, keys, member)
        came = await asked
        if isinstance(came, RedisError):
            return self._reserve_own(slug, limits, keys, member)
        if came:
            return concurrency.full(limits[came - 1])
        return self._hold(self._own.take(slug, limits), keys, member)

    def release(self, places: concurrency.HeldPlaces) -> None:
        """Give the places back, once: what comes later is ignored."""
        if isinstance(places, _Leased) and self._held.pop(places.member, None) is not None:
            self.windows.run(scripts.LEAVE, places.keys, (places.member,))
        self._own.release(places)

    async def keep(self) -> None:
        """Renew the leases of what is in flight, for as long as the process runs."""
        while True:
            loops.turned(len(self._held), rest_s=RENEWED_EVERY_S)
            await asyncio.sleep(RENEWED_EVERY_S)
            self.renew()

    def renew(self) -> None:
        """Renew all of them: also those that were admitted, or lost, while Redis was away."""
        for held in self._held.values():
            self.windows.run(scripts.HOLD, held.keys, (_LEASE_US, held.member))

    def _reserve_own(
        self, slug: str, limits: Sequence[WindowLimit], keys: Sequence[str], member: str
    ) -> concurrency.HeldPlaces | Refusal:
        taken = self._own.reserve(slug, limits)
        return taken if isinstance(taken, Refusal) else self._hold(taken, keys, member)

    def _hold(self, places: concurrency.HeldPlaces, keys: Sequence[str], member: str) -> concurrency.HeldPlaces:
        held = self._held[member] = _Leased(places, keys, member)
        return held


def opened(settings: Settings) -> tuple[SharedWindows | MemoryWindows, SharedPlaces | MemoryPlaces]:
    """Return the rate windows and the places that the settings ask for: shared, or this proxy's own."""
    where = redis.place(settings)
    if where is None:
        return MemoryWindows(), MemoryPlaces()
    shared = SharedWindows(where, settings.redis_key_prefix)
    return shared, SharedPlaces(shared)
