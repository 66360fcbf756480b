"""What others told near a limit stands beside the sums, whatever is told, lost, said twice or late (counting 6)."""

from datetime import date, timedelta

from hypothesis import given
from hypothesis import strategies as st

from proxy.limits.counters import LanePart
from proxy.limits.days import DayCounters, DayLimit, DayRefusal
from proxy.limits.in_flight import VOID_S, Amounts, CounterKey
from schemas.limits import LimitType, UsageLimitUnit

SLUG = "lab/model"
LAST, FIRST = date(2025, 2, 28), date(2025, 3, 1)
"""The last day of a month, and the day after it."""
THRESHOLD = 50
COUNTED = 3

tellings = st.tuples(
    st.sampled_from(["one", "two"]), st.sampled_from([LAST, FIRST, FIRST + timedelta(days=1)]), st.integers(0, 30)
)
# Seconds that are sums of powers of two: they add up without a rounding.
steps = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.125, 2.0]), tellings), max_size=25)


@given(steps)
def test_the_newest_word_of_each_counts_until_it_is_void_and_no_total_holds_any(
    steps: list[tuple[float, tuple[str, date, int]]],
) -> None:
    days = DayCounters("me")
    days.use_lanes([0], lambda *_: 0)
    days.take_whole(0, 0)
    days.take_part("g", SLUG, FIRST, 0, LanePart(1, 9, COUNTED, 0))
    days.take_month("g", SLUG, FIRST, 0, LanePart(1, 9, COUNTED, 0))
    holds: dict[tuple[str, date], tuple[int, float]] = {}
    now_s = 0.0
    for passed_s, (instance, day, requests) in steps:
        now_s += passed_s
        days.others.expire(now_s)
        days.others.take(CounterKey("g", SLUG, day), instance, Amounts(requests), now_s)
        holds[instance, day] = (requests, now_s)
        live = {name: told for name, (told, at_s) in holds.items() if now_s - at_s < VOID_S}
        of_day = sum(told for (_, one), told in live.items() if one == FIRST)
        of_month = sum(told for (_, one), told in live.items() if one >= FIRST)
        assert days.total("g", SLUG, FIRST) == (COUNTED, 0)
        assert refuses(days, UsageLimitUnit.DAY) == (COUNTED + of_day >= THRESHOLD)
        assert refuses(days, UsageLimitUnit.MONTH) == (COUNTED + of_month >= THRESHOLD)
    days.others.expire(now_s + VOID_S)
    assert not refuses(days, UsageLimitUnit.MONTH)


def refuses(days: DayCounters, unit: UsageLimitUnit) -> bool:
    """Say whether a limit refuses now. Where it does, it is for what others have in flight."""
    taken = days.reserve(FIRST, SLUG, ("g",), [DayLimit(LimitType.REQUEST, THRESHOLD, "g", "g", unit=unit)], 0)
    if isinstance(taken, DayRefusal):
        assert taken.rests_on_reservations
        return True
    days.release(taken)
    return False
