"""Windows in Redis decide as those in memory do, to the microsecond, whatever becomes of the limits."""

import asyncio
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.limits.rolling import LOGGED
from proxy.limits.windows import RateChain, Refusal, Reservation, WindowLimit
from proxy.windows import redis
from proxy.windows.memory import MemoryWindows
from proxy.windows.redis import SharedWindows
from runtime.redis import place
from schemas.limits import LimitType, RateLimitUnit

LIMITS = st.builds(
    WindowLimit,
    st.sampled_from([LimitType.REQUEST, LimitType.TOKEN]),
    st.sampled_from([RateLimitUnit.SECOND, RateLimitUnit.MINUTE]),
    st.sampled_from([0, 1, 2, 3, 7, 40, 900, LOGGED, LOGGED + 1]),
    st.just("root"),
    st.sampled_from(["root", "child"]),
)
CHAINS = st.lists(
    LIMITS, min_size=1, max_size=4, unique_by=lambda limit: (limit.counting_group, limit.type, limit.unit)
).map(lambda limits: RateChain("root", "lab/model", tuple(limits)))
STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.000001, 0.01, 0.049999, 0.05, 0.3, 1, 2.9, 3, 59.99, 63])),
    st.tuples(st.just("reserve"), CHAINS, st.integers(0, 50)),
    st.tuples(st.just("reserve"), CHAINS, st.integers(0, 50)),
    st.tuples(st.just("settle"), st.integers(0, 5), st.integers(0, 90)),
)


def read(taken: Reservation | Refusal) -> tuple[object, ...]:
    stand = tuple((each.limit, each.remaining, each.reset_s) for each in taken.standings)
    return stand if isinstance(taken, Reservation) else (*stand, taken.limit, taken.retry_after_ms)


async def both(url: str, steps: list[tuple[object, ...]]) -> None:
    now = [3_000_000.0]
    own = MemoryWindows(lambda: now[0])
    shared = SharedWindows(place(url), f"{uuid.uuid4()}:", lambda: now[0])
    kept = asyncio.create_task(shared.keep())
    await shared.connected.wait()
    open_: list[tuple[Reservation, Reservation]] = []
    for step in steps:
        match step:
            case ("wait", float() | int() as seconds):
                now[0] += seconds
            case ("reserve", RateChain() as chain, int() as tokens):
                expected, got = await own.reserve(chain, tokens), await shared.reserve(chain, tokens)
                assert read(got) == read(expected)
                if isinstance(expected, Reservation) and isinstance(got, Reservation):
                    open_.append((expected, got))
            case ("settle", int() as at, int() as used) if open_:
                expected, got = open_.pop(at % len(open_))
                own.settle(expected, used)
                shared.settle(got, used)
    assert shared.connected.is_set()
    kept.cancel()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "ANSWERS_WITHIN_S", 10)  # a busy machine's Redis is no outage


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=5, max_size=60))
def test_they_agree(redis_url: str, steps: list[tuple[object, ...]]) -> None:
    asyncio.run(both(redis_url, steps))
