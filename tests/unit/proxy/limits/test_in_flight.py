"""What proxies tell each other near a limit, and how little that leaves to be passed (contract 3.1, counting 6)."""

from datetime import date, timedelta

import pytest

from infra.simulate.overshoot import Race
from proxy.limits import in_flight
from proxy.limits.counters import LanePart
from proxy.limits.days import DayCounters, DayLimit, DayRefusal
from proxy.limits.in_flight import NEAR, NOTHING, Amounts, CounterKey, Heard
from proxy.limits.reservations import DayReservation
from schemas.limits import ANY_SLUG, LimitType, UsageLimitUnit

SLUG = "lab/model"
DAY = date(2025, 3, 1)
KEY = CounterKey("g", SLUG, DAY)
REQUEST = LimitType.REQUEST


def limit(threshold: int, type_: LimitType = REQUEST, *, over_all: bool = False) -> DayLimit:
    return DayLimit(type_, threshold, "g", "g", over_all)


def proxy(instance: str = "me", lanes: int = 1) -> DayCounters:
    days = DayCounters(instance)
    days.use_lanes(range(lanes), lambda *_: 0)
    for lane in range(lanes):
        days.take_whole(lane, 0)
    days.tell_others_from(NEAR)
    return days


def reserve(days: DayCounters, *limits: DayLimit, tokens: int = 10) -> DayReservation | DayRefusal:
    return days.reserve(DAY, SLUG, ("g",), limits, tokens, 4)


def admit(days: DayCounters, *limits: DayLimit, tokens: int = 10) -> DayReservation:
    taken = reserve(days, *limits, tokens=tokens)
    assert isinstance(taken, DayReservation)
    return taken


def test_nothing_is_told_far_from_a_limit_and_what_is_uncounted_near_it() -> None:
    days = proxy()
    days.take_part("g", SLUG, DAY, 0, LanePart(1, 5, 88, 0, 0))
    admit(days, limit(100))
    assert days.others.due(0.0) == []
    taken = admit(days, limit(100))
    assert days.others.due(0.0) == []
    admit(days, limit(100))
    assert days.others.due(1.0) == [(KEY, Amounts(3, 30, 12))]
    days.settle(taken, 1, 7, 2)
    assert days.others.due(1.2) == [(KEY, Amounts(3, 27, 10))], "ended, and in no total yet"


def test_it_is_told_when_it_changes_and_each_second_and_a_last_time_as_nothing() -> None:
    days = proxy()
    taken = admit(days, limit(1))
    reserve(days, limit(1))
    days.tell_others_from(0.0)
    admitted = admit(days, limit(10))
    assert days.others.due(0.0) == [(KEY, Amounts(2, 20, 8))]
    assert days.others.due(0.2) == []
    assert days.others.due(1.0) == [(KEY, Amounts(2, 20, 8))]
    days.release(taken)
    days.release(admitted)
    assert days.others.due(1.2) == [(KEY, NOTHING)]
    assert days.others.due(9.0) == []
    assert not days.others._telling._watched


def test_where_an_owner_is_silent_it_is_told_far_from_the_limit_once_it_is_a_thousandth_of_what_is_left() -> None:
    days = proxy()
    days.tell_others_from(0.0)
    taken = [admit(days, limit(5000)) for _ in range(4)]
    assert days.others.due(0.0) == []
    taken.append(admit(days, limit(5000)))
    assert days.others.due(0.2) == [(KEY, Amounts(5, 50, 20))]
    for one in taken:
        days.release(one)
    assert days.others.due(0.4) == [(KEY, NOTHING)]


def test_the_largest_are_told_first_and_the_others_next_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "MOST", 2)
    days = proxy()
    for group, tokens in (("a", 5), ("b", 50), ("c", 20)):
        days.reserve(DAY, SLUG, (group,), [DayLimit(LimitType.TOKEN, 1, group, group)], tokens)
        days.tell_others_from(0.0)
        days.reserve(DAY, SLUG, (group,), [DayLimit(REQUEST, 3, group, group)], tokens)
    assert [key.group for key, _ in days.others.due(0.0)] == ["b", "c"]
    assert [key.group for key, _ in days.others.due(0.2)] == ["a"]


def test_what_others_tell_counts_and_a_refusal_that_needs_it_rests_on_reservations() -> None:
    days = proxy()
    days.others.take(KEY, "other", Amounts(2, 500, 100), 0.0)
    days.others.take(KEY, "third", Amounts(1, 30, 10), 0.0)
    days.others.take(KEY, "me", Amounts(9, 9, 9), 0.0)
    admit(days, limit(4))
    refused = reserve(days, limit(4))
    assert isinstance(refused, DayRefusal)
    assert refused.rests_on_reservations
    assert isinstance(reserve(days, limit(110, LimitType.OUTPUT_TOKEN)), DayRefusal)
    admit(days, limit(115, LimitType.OUTPUT_TOKEN))
    days.take_part("g", SLUG, DAY, 0, LanePart(1, 9, 4, 100, 10))
    used_up = reserve(days, limit(4))
    assert isinstance(used_up, DayRefusal)
    assert not used_up.rests_on_reservations


def test_a_word_is_void_two_seconds_after_it_was_heard() -> None:
    days = proxy()
    days.others.take(KEY, "other", Amounts(5, 0, 0), 0.0)
    days.others.expire(1.9)
    assert isinstance(reserve(days, limit(5)), DayRefusal)
    days.others.take(KEY, "third", Amounts(1, 0, 0), 1.9)
    days.others.expire(2.0)
    admit(days, limit(5))
    assert days._periods.counter("g", SLUG, DAY).others == Amounts(1, 0, 0)
    days.others.expire(4.0)
    assert days._periods.counter("g", SLUG, DAY).others is None
    assert not days.others._heard._words


def test_a_proxy_says_that_it_has_no_more() -> None:
    heard = Heard()
    heard.take(KEY, "other", Amounts(5, 1, 0), 0.0)
    heard.take(KEY, "third", Amounts(1, 1, 0), 0.0)
    assert heard.sum(KEY) == Amounts(6, 2, 0)
    heard.take(KEY, "other", NOTHING, 0.1)
    assert heard.sum(KEY) == Amounts(1, 1, 0)
    heard.take(KEY, "third", NOTHING, 0.1)
    assert heard.sum(KEY) == NOTHING
    assert not heard._words


def test_near_a_months_limit_the_day_is_told_and_heard_in_the_month_with_that_of_the_day_before() -> None:
    days = proxy()
    month = DayLimit(REQUEST, 100, "g", "g", unit=UsageLimitUnit.MONTH)
    days.take_month("g", SLUG, DAY, 0, LanePart(1, 5, 89, 0, 0))
    admit(days, month)
    admit(days, month)
    assert days.others.due(0.0) == [(KEY, Amounts(2, 20, 8))]
    days.others.take(KEY, "other", Amounts(5, 0, 0), 0.0)
    days.others.take(KEY._replace(day=DAY + timedelta(days=1)), "other", Amounts(3, 0, 0), 0.0)
    days.others.take(KEY._replace(day=DAY - timedelta(days=1)), "other", Amounts(7, 0, 0), 0.0)
    admit(days, month, limit(8))
    refused = reserve(days, month)
    assert isinstance(refused, DayRefusal), "89 counted, 3 in flight here, 8 elsewhere, none of them of February"
    assert refused.rests_on_reservations


def test_words_of_days_that_are_over_are_not_kept() -> None:
    days = proxy()
    days.forget(DAY + timedelta(days=1))
    days.others.take(KEY, "other", Amounts(5, 0, 0), 0.0)
    assert len(days) == 0


def test_the_sum_over_all_slugs_is_told_and_heard_under_its_own_name() -> None:
    days = proxy()
    days.take_part("g", SLUG, DAY, 0, LanePart(1, 9, 9, 100, 10))
    admit(days, limit(10, over_all=True))
    assert days.others.due(0.0) == [(KEY._replace(slug=ANY_SLUG), Amounts(1, 10, 4))]
    days.others.take(KEY._replace(slug=ANY_SLUG), "other", Amounts(1, 0, 0), 0.0)
    assert isinstance(reserve(days, limit(11, over_all=True)), DayRefusal)
    admit(days, limit(11))


def test_four_proxies_at_a_hundred_requests_a_second_of_two_seconds_pass_a_limit_by_little() -> None:
    assert Race(4, tells=False).run(100, 2) > 100, "what it would be otherwise"
    assert 0 <= Race(4, tells=True).run(100, 2) <= 30
    assert Race(1, tells=True).run(100, 2) == 0
