"""Day counters: the proxy's sum of counting 6 against day limits (contract 3.1)."""

from datetime import UTC, date, datetime, timedelta

import pytest

from proxy.limits.days import DayCounters, DayLimit, DayRefusal, DayReservation
from schemas.decisions import Decision, UsedUp
from schemas.limits import LimitType

SLUG = "lab/model"
DAY = date(2025, 3, 1)
REQUEST, TOKEN = LimitType.REQUEST, LimitType.TOKEN


def limit(type_: LimitType, threshold: int, group: str = "g1") -> DayLimit:
    return DayLimit(type_, threshold, group, group)


def decision(
    version: int,
    requests: int,
    tokens: int,
    counted: dict[str, int] | None = None,
    *,
    used_up: tuple[UsedUp, ...] = (),
) -> Decision:
    return Decision(
        group_id="g1",
        model_slug=SLUG,
        day=DAY,
        requests=requests,
        tokens=tokens,
        counted=counted or {},
        used_up=used_up,
        reset_at=datetime(2025, 3, 2, tzinfo=UTC),
        version=version,
    )


def admit(
    days: DayCounters, *limits: DayLimit, tokens: int = 10, groups: tuple[str, ...] = ("g1",), day: date = DAY
) -> DayReservation:
    taken = days.reserve(day, SLUG, groups, limits, tokens)
    assert isinstance(taken, DayReservation)
    return taken


def refused_by(days: DayCounters, *limits: DayLimit, groups: tuple[str, ...] = ("g1",)) -> DayLimit:
    refused = days.reserve(DAY, SLUG, groups, limits, 10)
    assert isinstance(refused, DayRefusal)
    return refused.limit


def test_requests_in_flight_count_so_the_last_place_is_given_once() -> None:
    days = DayCounters("me")
    one = limit(REQUEST, 1)
    admit(days, one)
    assert refused_by(days, one) is one


def test_a_lone_request_is_never_refused_for_its_own_size() -> None:
    days = DayCounters("me")
    small = limit(TOKEN, 5)
    admit(days, small, tokens=10_000)
    assert refused_by(days, small) is small


def test_settling_replaces_the_estimate() -> None:
    days = DayCounters("me")
    days.settle(admit(days, tokens=100), 1, 30)
    assert days.total("g1", SLUG, DAY) == (1, 30)


def test_release_gives_everything_back() -> None:
    days = DayCounters("me")
    one = limit(REQUEST, 1)
    days.release(admit(days, one, tokens=100))
    assert days.total("g1", SLUG, DAY) == (0, 0)
    admit(days, one)


@pytest.mark.parametrize("first", ["settle", "release"])
@pytest.mark.parametrize("second", ["settle", "release"])
def test_a_reservation_ends_once(first: str, second: str) -> None:
    days = DayCounters("me")
    taken = admit(days, tokens=100)
    for sequence, end in enumerate((first, second), start=1):
        if end == "settle":
            days.settle(taken, sequence, 30)
        else:
            days.release(taken)
    assert days.total("g1", SLUG, DAY) == ((1, 30) if first == "settle" else (0, 0))


def test_the_first_limit_hit_is_named_and_nothing_is_taken() -> None:
    days = DayCounters("me")
    chain = ("g1", "g2", "g3", "g4", "g5")
    limits = [limit(REQUEST, 1 if group == "g3" else 10, group) for group in chain]
    admit(days, *limits, groups=chain)
    assert refused_by(days, *limits, groups=chain).counting_group == "g3"
    assert {days.total(group, SLUG, DAY) for group in chain} == {(1, 10)}


def test_every_charged_group_is_counted_limited_or_not() -> None:
    days = DayCounters("me")
    days.settle(admit(days, groups=("child", "root"), tokens=9), 1, 7)
    assert days.total("child", SLUG, DAY) == days.total("root", SLUG, DAY) == (1, 7)
    assert refused_by(days, limit(TOKEN, 7, "root")).counting_group == "root"


def test_a_decision_takes_over_the_rows_it_counts() -> None:
    days = DayCounters("me")
    for sequence in (4, 5, 6):
        days.settle(admit(days), sequence, sequence)
    days.take_decision(decision(1, requests=12, tokens=509, counted={"me": 5}))
    assert days.total("g1", SLUG, DAY) == (13, 515)


def test_a_row_that_a_decision_already_counts_is_dropped_when_it_settles() -> None:
    days = DayCounters("me")
    taken = admit(days, tokens=100)
    days.take_decision(decision(1, requests=1, tokens=30, counted={"me": 8}))
    days.settle(taken, 8, 30)
    assert days.total("g1", SLUG, DAY) == (1, 30)


def test_marks_are_per_instance() -> None:
    days = DayCounters("me")
    days.restore(("g1",), SLUG, DAY, "old", 3, 50)
    days.settle(admit(days), 2, 7)
    days.take_decision(decision(1, requests=1, tokens=7, counted={"me": 3}))
    assert days.total("g1", SLUG, DAY) == (2, 57)
    days.take_decision(decision(2, requests=2, tokens=57, counted={"me": 3, "old": 3}))
    assert days.total("g1", SLUG, DAY) == (2, 57)


@pytest.mark.parametrize("stale", [5, 4])
def test_a_decision_that_is_not_newer_is_ignored(stale: int) -> None:
    days = DayCounters("me")
    days.take_decision(decision(5, requests=3, tokens=30))
    days.take_decision(decision(stale, requests=1, tokens=10))
    assert days.total("g1", SLUG, DAY) == (3, 30)


def test_marks_that_duplicates_moved_count_without_a_new_version() -> None:
    days = DayCounters("me")
    days.take_decision(decision(5, requests=1, tokens=10, counted={"me": 1, "old": 7}))
    days.restore(["g1"], SLUG, DAY, "me", 2, 10)
    assert days.total("g1", SLUG, DAY) == (2, 20)
    days.take_decision(decision(5, requests=1, tokens=10, counted={"me": 2}))
    assert days.total("g1", SLUG, DAY) == (1, 10), "the row was a duplicate of what is counted"
    days.restore(["g1"], SLUG, DAY, "old", 7, 10)
    assert days.total("g1", SLUG, DAY) == (1, 10), "a mark never falls"


def test_version_zero_is_a_decision_too() -> None:
    days = DayCounters("me")
    days.take_decision(decision(0, requests=3, tokens=30))
    assert days.total("g1", SLUG, DAY) == (3, 30)


def test_restored_rows_count_once_and_for_every_charged_group() -> None:
    days = DayCounters("me")
    days.take_decision(decision(1, requests=1, tokens=5, counted={"me": 1}))
    for sequence in (1, 2, 2):
        days.restore(("g1", "root"), SLUG, DAY, "me", sequence, 5)
    assert days.total("g1", SLUG, DAY) == (2, 10)
    assert days.total("root", SLUG, DAY) == (2, 10)


def test_rows_may_settle_out_of_order() -> None:
    days = DayCounters("me")
    for sequence in (2, 9, 3):
        days.settle(admit(days), sequence, 10)
    days.take_decision(decision(1, requests=2, tokens=20, counted={"me": 3}))
    assert days.total("g1", SLUG, DAY) == (3, 30)


def test_used_up_is_obeyed_for_the_very_threshold_that_is_held() -> None:
    days = DayCounters("me")
    days.take_decision(decision(1, requests=3, tokens=30, used_up=(UsedUp(type=TOKEN, threshold=100),)))
    held = limit(TOKEN, 100)
    assert refused_by(days, held) is held
    days.release(admit(days, limit(TOKEN, 200)))  # raised: the total is compared with our own
    days.release(admit(days, limit(REQUEST, 100)))
    lowered = limit(TOKEN, 30)
    assert refused_by(days, lowered) is lowered


def test_a_newer_decision_lifts_used_up() -> None:
    days = DayCounters("me")
    days.take_decision(decision(1, requests=3, tokens=30, used_up=(UsedUp(type=REQUEST, threshold=5),)))
    days.take_decision(decision(2, requests=3, tokens=30))
    admit(days, limit(REQUEST, 5))


def test_limits_may_change_in_the_middle_of_the_day() -> None:
    days = DayCounters("me")
    admit(days, limit(REQUEST, 1))
    refused_by(days, limit(REQUEST, 1))
    admit(days, limit(REQUEST, 2))
    refused_by(days, limit(REQUEST, 1))
    admit(days)
    assert days.total("g1", SLUG, DAY) == (3, 30)


def test_days_and_slugs_are_apart() -> None:
    days = DayCounters("me")
    admit(days, limit(REQUEST, 1))
    admit(days, limit(REQUEST, 1), day=DAY + timedelta(days=1))
    assert isinstance(days.reserve(DAY, "lab/other", ("g1",), [limit(REQUEST, 1)], 10), DayReservation)


def test_a_request_counts_for_the_day_of_its_admission() -> None:
    days = DayCounters("me")
    late = admit(days)
    admit(days, day=DAY + timedelta(days=1))
    days.settle(late, 1, 77)
    assert days.total("g1", SLUG, DAY) == (1, 77)
    assert days.total("g1", SLUG, DAY + timedelta(days=1)) == (1, 10)


def test_forgotten_days_stay_forgotten_and_what_is_in_flight_ends_harmlessly() -> None:
    days = DayCounters("me")
    flying = admit(days)
    tomorrow = DAY + timedelta(days=1)
    admit(days, day=tomorrow)
    days.forget(tomorrow)
    days.forget(DAY)  # an earlier day brings nothing back
    days.settle(flying, 1, 5)
    days.take_decision(decision(9, requests=3, tokens=30))
    days.restore(("g1",), SLUG, DAY, "me", 2, 5)
    assert days.total("g1", SLUG, DAY) == (0, 0)
    assert days.total("g1", SLUG, tomorrow) == (1, 10)
    assert len(days) == 1
    days.take_decision(decision(1, requests=3, tokens=30).model_copy(update={"day": tomorrow}))
    assert days.total("g1", SLUG, tomorrow) == (4, 40), "the oldest day that is kept takes decisions"


def test_a_row_is_counted_when_decisions_count_it_for_every_charged_group() -> None:
    days = DayCounters("me")
    assert not days.is_counted(("g1",), SLUG, DAY, "me", 1), "nothing is known"
    days.take_decision(decision(1, 5, 50, {"me": 5}))
    assert days.is_counted(("g1",), SLUG, DAY, "me", 5)
    assert not days.is_counted(("g1",), SLUG, DAY, "me", 6)
    assert not days.is_counted(("g1",), SLUG, DAY, "other", 5)
    assert not days.is_counted(("g1",), "lab/other", DAY, "me", 5)
    assert not days.is_counted(("g1",), SLUG, DAY + timedelta(days=1), "me", 5)
    assert not days.is_counted(("g1", "root"), SLUG, DAY, "me", 5), "the root's totals do not hold it yet"
    days.take_decision(decision(1, 5, 50, {"me": 4}).model_copy(update={"group_id": "root"}))
    assert not days.is_counted(("g1", "root"), SLUG, DAY, "me", 5)
    assert days.is_counted(("g1", "root"), SLUG, DAY, "me", 4)


def test_the_oldest_row_that_is_awaited_is_told_by_instance() -> None:
    days = DayCounters("me")
    assert days.oldest_awaited(DAY) == {}
    for instance, sequence in (("me", 7), ("me", 5), ("old", 9)):
        days.restore(("g1", "root"), SLUG, DAY, instance, sequence, 10)
    assert days.oldest_awaited(DAY) == {"me": 5, "old": 9}
    assert days.oldest_awaited(DAY + timedelta(days=1)) == {}
    days.take_decision(decision(1, 3, 30, {"me": 7, "old": 9}))
    assert days.oldest_awaited(DAY) == {"me": 5, "old": 9}, "the root's totals do not hold them yet"
    days.take_decision(decision(1, 2, 20, {"me": 5}).model_copy(update={"group_id": "root"}))
    assert days.oldest_awaited(DAY) == {"me": 7, "old": 9}


@pytest.mark.parametrize("sequences", [(3, 7), (7, 3)])
def test_of_rows_that_several_counters_await_the_oldest_is_told(sequences: tuple[int, int]) -> None:
    days = DayCounters("me")
    for group, sequence in zip(("g1", "g2"), sequences, strict=True):
        days.restore((group,), SLUG, DAY, "me", sequence, 10)
    assert days.oldest_awaited(DAY) == {"me": 3}


def test_asking_makes_no_counter() -> None:
    days = DayCounters("me")
    days.is_counted(("g1",), SLUG, DAY, "me", 1)
    assert len(days) == 0


def test_a_restored_row_that_is_counted_is_in_the_sum_once_whichever_comes_first() -> None:
    """Rows 3 to 5 remain in the spool; metering counts up to 4, of which 1 and 2 are gone from the spool."""
    for decision_first in (True, False):
        days = DayCounters("me")
        counted = decision(7, 4, 40, {"me": 4})
        if decision_first:
            days.take_decision(counted)
        for sequence in (3, 4, 5):
            days.restore(("g1",), SLUG, DAY, "me", sequence, 10)
        if not decision_first:
            days.take_decision(counted)
        assert days.total("g1", SLUG, DAY) == (5, 50)
