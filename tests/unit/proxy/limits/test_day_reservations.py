"""A day that only requests in flight hold is not used up (contract 3.1)."""

import pytest

from proxy.limits.days import DayCounters, DayLimit, DayRefusal
from tests.unit.proxy.limits.test_days import DAY, REQUEST, SLUG, TOKEN, admit, limit, told


def refuse(days: DayCounters, *limits: DayLimit) -> DayRefusal:
    refused = days.reserve(DAY, SLUG, ("g1",), limits, 10)
    assert isinstance(refused, DayRefusal)
    return refused


@pytest.mark.parametrize("held", [limit(REQUEST, 1), limit(TOKEN, 100)])
def test_a_refusal_rests_on_reservations_until_they_have_settled(held: DayLimit) -> None:
    days = DayCounters("me")
    taken = admit(days, held, tokens=200)
    assert refuse(days, held) == DayRefusal(held, rests_on_reservations=True)
    days.settle(taken, 1, 100)
    assert refuse(days, held) == DayRefusal(held, rests_on_reservations=False)


def test_a_used_up_limit_wins_over_one_that_is_only_held() -> None:
    days = DayCounters("me")
    days.settle(admit(days, tokens=50), 1, 50)
    admit(days, tokens=200)
    held, gone = limit(TOKEN, 100), limit(REQUEST, 1)
    assert refuse(days, held, gone) == DayRefusal(gone, rests_on_reservations=False)


def test_what_was_released_holds_nothing() -> None:
    days, one = DayCounters("me"), limit(REQUEST, 1)
    days.release(admit(days, one))
    days.settle(admit(days, one), 1, 10)
    assert not refuse(days, one).rests_on_reservations


def test_what_metering_has_counted_rests_on_no_reservation() -> None:
    days, tokens = DayCounters("me"), limit(TOKEN, 100)
    admit(days, tokens, tokens=200)
    told(days, 1, requests=1, tokens=100)
    assert not refuse(days, tokens).rests_on_reservations


def test_a_threshold_of_zero_is_used_up_from_the_beginning() -> None:
    for nothing in (limit(REQUEST, 0), limit(TOKEN, 0)):
        assert refuse(DayCounters("me"), nothing) == DayRefusal(nothing, rests_on_reservations=False)
