"""What every `Windows` adapter must do, whoever keeps the counters (contract 3.1)."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from proxy.admission import Windows
from proxy.limits.windows import RateChain, Refusal, Reservation, WindowLimit
from proxy.windows import redis
from proxy.windows.memory import MemoryWindows
from proxy.windows.redis import SharedWindows
from runtime.redis import place
from schemas.limits import LimitType, RateLimitUnit
from tests.unit.proxy.fakes import FakeWindows

REQUEST, TOKEN = LimitType.REQUEST, LimitType.TOKEN
SECOND, MINUTE = RateLimitUnit.SECOND, RateLimitUnit.MINUTE


@dataclass
class HandClock:
    """A clock that stands still until it is moved."""

    now_s: float = 3_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture(params=[MemoryWindows, FakeWindows, SharedWindows])
async def adapter(
    request: pytest.FixtureRequest, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Windows]:
    if request.param is not SharedWindows:
        yield request.param(clock)
        return
    monkeypatch.setattr(redis, "ANSWERS_WITHIN_S", 10)  # a busy machine's Redis is no outage
    adapter = SharedWindows(place(request.getfixturevalue("redis_url")), f"{uuid.uuid4()}:", clock)
    kept = asyncio.create_task(adapter.keep())
    await adapter.connected.wait()
    yield adapter
    assert adapter.connected.is_set()
    kept.cancel()


def chain(*limits: tuple[LimitType, RateLimitUnit, int], slug: str = "lab/model") -> RateChain:
    """Return a chain whose limits the root sets, each counted for one group: level0 (the own group), level1, ..."""
    named = [WindowLimit(*limit, "root", f"level{level}") for level, limit in enumerate(limits)]
    return RateChain("root", slug, tuple(named))


def inherited(group: str, *, source: str = "parent") -> RateChain:
    """Return a chain of one request a minute that `source` sets and that is counted for `group`."""
    return RateChain("root", "lab/model", (WindowLimit(REQUEST, MINUTE, 1, source, group),))


async def admit(adapter: Windows, wanted: RateChain, tokens: int = 10) -> Reservation:
    taken = await adapter.reserve(wanted, tokens)
    assert isinstance(taken, Reservation)
    return taken


async def refuse(adapter: Windows, wanted: RateChain, tokens: int = 10) -> Refusal:
    refused = await adapter.reserve(wanted, tokens)
    assert isinstance(refused, Refusal)
    return refused


async def test_the_last_place_is_given_once(adapter: Windows) -> None:
    wanted = chain((REQUEST, SECOND, 2))
    await admit(adapter, wanted)
    await admit(adapter, wanted)
    refused = await refuse(adapter, wanted)
    assert refused.limit == wanted.limits[0]


async def test_a_retry_exactly_at_retry_after_gets_in_and_not_before(adapter: Windows, clock: HandClock) -> None:
    wanted = chain((REQUEST, SECOND, 1), (TOKEN, MINUTE, 5))
    clock.now_s += 0.0123
    adapter.settle(await admit(adapter, wanted), 10)
    refused = await refuse(adapter, wanted)
    assert refused.limit == wanted.limits[1]
    clock.now_s += refused.retry_after_s - 0.002
    await refuse(adapter, wanted)
    clock.now_s += 0.002
    await admit(adapter, wanted)


async def test_a_refusal_takes_nothing_from_the_other_limits(adapter: Windows) -> None:
    wanted = chain(*[(REQUEST, MINUTE, 1 if level == 2 else 10) for level in range(5)])
    await admit(adapter, wanted)
    for _ in range(20):
        await refuse(adapter, wanted)
    others = RateChain("root", wanted.slug, wanted.limits[:2] + wanted.limits[3:])
    for _ in range(9):
        await admit(adapter, others)
    await refuse(adapter, others)


async def test_settling_refunds_and_charges_tokens(adapter: Windows) -> None:
    wanted = chain((TOKEN, MINUTE, 100))
    adapter.settle(await admit(adapter, wanted, tokens=100), 40)
    taken = await admit(adapter, wanted, tokens=10)
    assert [standing.remaining for standing in taken.standings] == [50]
    adapter.settle(taken, 60)
    await refuse(adapter, wanted)


async def test_input_and_output_tokens_take_their_part_alone(adapter: Windows) -> None:
    wanted = chain((LimitType.INPUT_TOKEN, MINUTE, 70), (LimitType.OUTPUT_TOKEN, MINUTE, 30))
    taken = await adapter.reserve(wanted, 100, 30)
    assert isinstance(taken, Reservation)
    assert [(each.limit, each.remaining) for each in taken.standings] == [(wanted.limits[0], 0)]
    adapter.settle(taken, 60, 20)
    refused = await adapter.reserve(chain((LimitType.INPUT_TOKEN, MINUTE, 40)), 1)
    assert isinstance(refused, Refusal)
    again = await adapter.reserve(wanted, 2, 2)
    assert isinstance(again, Reservation)
    assert [(each.limit, each.remaining) for each in again.standings] == [(wanted.limits[1], 8)]


async def test_a_limit_over_all_slugs_counts_them_together(adapter: Windows) -> None:
    limits = [WindowLimit(REQUEST, MINUTE, 2, "root", "root", over_all=True)]
    for slug in ("lab/model", "lab/other"):
        await admit(adapter, RateChain("root", slug, tuple(limits)))
    await refuse(adapter, RateChain("root", "lab/third", tuple(limits)))
    await admit(adapter, inherited("root"))


async def test_release_keeps_the_place_in_a_request_window(adapter: Windows) -> None:
    adapter.release(await admit(adapter, chain((TOKEN, MINUTE, 10)), tokens=10))
    await admit(adapter, chain((TOKEN, MINUTE, 10)), tokens=10)
    adapter.release(await admit(adapter, chain((REQUEST, MINUTE, 1))))
    await refuse(adapter, chain((REQUEST, MINUTE, 1)))


async def test_a_reservation_ends_once(adapter: Windows) -> None:
    wanted = chain((TOKEN, MINUTE, 100))
    taken = await admit(adapter, wanted, tokens=50)
    adapter.settle(taken, 30)
    adapter.release(taken)
    assert [standing.remaining for standing in (await admit(adapter, wanted, tokens=0)).standings] == [70]


async def test_standings_of_admissions_and_refusals(adapter: Windows, clock: HandClock) -> None:
    wanted = chain((REQUEST, SECOND, 3), (REQUEST, MINUTE, 2), (TOKEN, MINUTE, 100))
    requests, tokens = (await admit(adapter, wanted, tokens=30)).standings
    assert (requests.limit, requests.remaining, requests.reset_s) == (wanted.limits[1], 1, 60.0)
    assert (tokens.limit, tokens.remaining, tokens.reset_s) == (wanted.limits[2], 70, 63.0)
    await admit(adapter, wanted, tokens=30)
    clock.now_s += 1.5
    refused = await refuse(adapter, wanted)
    assert [(standing.remaining, standing.reset_s) for standing in refused.standings] == [(0, 58.5), (40, 61.5)]


async def test_slugs_are_apart(adapter: Windows) -> None:
    await admit(adapter, chain((REQUEST, MINUTE, 1)))
    await admit(adapter, chain((REQUEST, MINUTE, 1), slug="lab/other"))


async def test_groups_that_inherit_one_limit_have_a_window_each(adapter: Windows) -> None:
    await admit(adapter, inherited("child"))
    await admit(adapter, inherited("sibling"))
    await refuse(adapter, inherited("child"))


async def test_a_limit_that_another_group_sets_now_finds_the_content_it_left(adapter: Windows) -> None:
    await admit(adapter, inherited("child"))
    await refuse(adapter, inherited("child", source="child"))


async def test_no_limits_admit(adapter: Windows) -> None:
    taken = await admit(adapter, chain())
    assert taken.standings == ()
    adapter.settle(taken, 10**9)


async def test_forgetting_the_idle_forgets_nothing_that_counts(adapter: Windows, clock: HandClock) -> None:
    wanted = chain((REQUEST, SECOND, 1))
    await admit(adapter, wanted)
    clock.now_s += 0.999
    adapter.forget_idle()
    await refuse(adapter, wanted)
    clock.now_s += 0.001
    adapter.forget_idle()
    await admit(adapter, wanted)


async def test_a_clock_that_steps_back_reopens_nothing(adapter: Windows, clock: HandClock) -> None:
    wanted = chain((REQUEST, SECOND, 1), (TOKEN, MINUTE, 100))
    clock.now_s += 30
    await admit(adapter, wanted, tokens=60)
    clock.now_s -= 20
    refused = await refuse(adapter, wanted)
    assert refused.retry_after_s == 21
    clock.now_s += 20.999
    await refuse(adapter, wanted)
    clock.now_s += 0.001
    await admit(adapter, wanted)
