"""What every `ConcurrencyLimits` adapter must do, whoever counts the requests in flight (contract 2.2)."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest

from proxy.admission import ConcurrencyLimits
from proxy.limits import concurrency
from proxy.limits.windows import Refusal, WindowLimit
from proxy.windows import redis
from proxy.windows.leases import LEASE_S, SharedPlaces
from proxy.windows.memory import MemoryPlaces
from proxy.windows.redis import SharedWindows
from runtime.redis import place
from schemas.limits import LimitType, RateLimitUnit
from tests.contracts.proxy.windows.test_windows import HandClock

SLUG = "lab/model"


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def proxies(
    request: pytest.FixtureRequest, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[SharedPlaces]]:
    """Two proxies of one installation."""
    monkeypatch.setattr(redis, "ANSWERS_WITHIN_S", 10)  # a busy machine's Redis is no outage
    prefix = f"{uuid.uuid4()}:"
    both = [SharedWindows(place(request.getfixturevalue("redis_url")), prefix, clock) for _ in range(2)]
    kept = [asyncio.create_task(one.keep()) for one in both]
    for one in both:
        await one.connected.wait()
    yield [SharedPlaces(one) for one in both]
    for task in kept:
        task.cancel()
    await asyncio.gather(*kept, return_exceptions=True)


@pytest.fixture(params=[MemoryPlaces, SharedPlaces])
def adapter(request: pytest.FixtureRequest) -> ConcurrencyLimits:
    if request.param is MemoryPlaces:
        return MemoryPlaces()
    adapter: ConcurrencyLimits = request.getfixturevalue("proxies")[0]
    return adapter


def limit(threshold: int, group: str = "root", *, over_all: bool = False) -> WindowLimit:
    return WindowLimit(LimitType.REQUEST, RateLimitUnit.CONCURRENT, threshold, "source", group, over_all)


async def admit(adapter: ConcurrencyLimits, *limits: WindowLimit, slug: str = SLUG) -> concurrency.HeldPlaces:
    taken = await adapter.reserve("root", slug, limits)
    assert not isinstance(taken, Refusal)
    return taken


async def refuse(adapter: ConcurrencyLimits, *limits: WindowLimit, slug: str = SLUG) -> WindowLimit:
    refused = await adapter.reserve("root", slug, limits)
    assert isinstance(refused, Refusal)
    assert (refused.retry_after_ms, refused.standings) == (1000, ())
    return refused.limit


async def test_as_many_are_in_flight_as_may_be(adapter: ConcurrencyLimits) -> None:
    held = [await admit(adapter, limit(2)) for _ in range(2)]
    assert await refuse(adapter, limit(2)) == limit(2)
    await admit(adapter, limit(2), slug="lab/other")
    adapter.release(held[0])
    adapter.release(held[0])
    await admit(adapter, limit(2))
    await refuse(adapter, limit(2))
    await refuse(adapter, limit(0, "another"))


async def test_a_refusal_takes_from_no_limit_and_names_the_first_that_is_full(adapter: ConcurrencyLimits) -> None:
    chain = (limit(5, "child"), limit(1, "middle"), limit(1, "root"))
    held = await admit(adapter, *chain)
    assert await refuse(adapter, *chain) == chain[1]
    for _ in range(4):
        await admit(adapter, chain[0])
    assert await refuse(adapter, *chain) == chain[0]
    adapter.release(held)
    assert len(adapter) == 1


async def test_one_limit_over_all_slugs(adapter: ConcurrencyLimits) -> None:
    await admit(adapter, limit(1, over_all=True))
    await refuse(adapter, limit(1, over_all=True), slug="lab/other")
    await admit(adapter, limit(1))


async def test_all_proxies_hold_one_limit_and_give_back_what_is_theirs(proxies: list[SharedPlaces]) -> None:
    mine, other = proxies
    held = await admit(mine, limit(2))
    await admit(other, limit(2))
    assert await refuse(mine, limit(2)) == await refuse(other, limit(2)) == limit(2)
    mine.release(held)
    await admit(mine, limit(1, "another"))  # behind the release, on the same connection
    await admit(other, limit(2))
    await refuse(mine, limit(2))


async def test_what_a_proxy_held_that_died_is_free_after_a_lease(proxies: list[SharedPlaces], clock: HandClock) -> None:
    dead, alive = proxies
    await admit(dead, limit(2))
    held = await admit(alive, limit(2))
    clock.now_s += LEASE_S - 1
    await refuse(alive, limit(2))
    alive.renew()
    clock.now_s += 1
    await admit(alive, limit(2))
    await refuse(alive, limit(2))
    alive.release(held)
    await admit(alive, limit(2))


async def test_what_was_admitted_without_redis_is_told_to_it_later(proxies: list[SharedPlaces]) -> None:
    mine, other = proxies
    connection, mine.windows._connection = mine.windows._connection, None
    held = await admit(mine, limit(1))
    await refuse(mine, limit(1))
    await admit(other, limit(1))
    mine.windows._connection = connection
    mine.renew()
    await refuse(mine, limit(2))
    mine.release(held)
    await admit(mine, limit(2))
