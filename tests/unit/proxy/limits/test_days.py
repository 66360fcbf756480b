"""Day counters: the proxy's sum of counting 6 against day limits (contract 3.1)."""

from datetime import date, timedelta

import pytest

from proxy.limits.counters import LanePart, SpooledRow
from proxy.limits.days import DayCounters, DayLimit, DayRefusal
from proxy.limits.reservations import DayReservation
from schemas.decisions import DecisionBySequence
from schemas.limits import LimitType

SLUG = "lab/model"
DAY = date(2025, 3, 1)
REQUEST, TOKEN = LimitType.REQUEST, LimitType.TOKEN


def limit(type_: LimitType, threshold: int, group: str = "g1") -> DayLimit:
    return DayLimit(type_, threshold, group, group)


def told(
    days: DayCounters,
    version: int,
    requests: int,
    tokens: int,
    through: int = 0,
    *,
    lane: str = "me",
    group: str = "g1",
    day: date = DAY,
) -> None:
    """Take a lane's part that counts the rows up to the sequence `through`; embedded, that is the offset."""
    days.take_part(group, SLUG, day, lane, LanePart(version, through + 1, requests, tokens))


def restore(days: DayCounters, sequence: int, tokens: int, *groups: str, instance: str = "me") -> None:
    days.restore(groups or ("g1",), SLUG, DAY, SpooledRow(sequence, tokens, sequence), lane=instance, instance=instance)


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
    days = DayCounters("me", "me")
    one = limit(REQUEST, 1)
    admit(days, one)
    assert refused_by(days, one) is one


def test_a_lone_request_is_never_refused_for_its_own_size() -> None:
    days = DayCounters("me", "me")
    small = limit(TOKEN, 5)
    admit(days, small, tokens=10_000)
    assert refused_by(days, small) is small


def test_settling_replaces_the_estimate() -> None:
    days = DayCounters("me", "me")
    days.settle(admit(days, tokens=100), 1, 30)
    assert days.total("g1", SLUG, DAY) == (1, 30)


def test_release_gives_everything_back() -> None:
    days = DayCounters("me", "me")
    one = limit(REQUEST, 1)
    days.release(admit(days, one, tokens=100))
    assert days.total("g1", SLUG, DAY) == (0, 0)
    admit(days, one)


@pytest.mark.parametrize("first", ["settle", "release"])
@pytest.mark.parametrize("second", ["settle", "release"])
def test_a_reservation_ends_once(first: str, second: str) -> None:
    days = DayCounters("me", "me")
    taken = admit(days, tokens=100)
    for sequence, end in enumerate((first, second), start=1):
        if end == "settle":
            days.settle(taken, sequence, 30)
        else:
            days.release(taken)
    assert days.total("g1", SLUG, DAY) == ((1, 30) if first == "settle" else (0, 0))


def test_the_first_limit_hit_is_named_and_nothing_is_taken() -> None:
    days = DayCounters("me", "me")
    chain = ("g1", "g2", "g3", "g4", "g5")
    limits = [limit(REQUEST, 1 if group == "g3" else 10, group) for group in chain]
    admit(days, *limits, groups=chain)
    assert refused_by(days, *limits, groups=chain).counting_group == "g3"
    assert {days.total(group, SLUG, DAY) for group in chain} == {(1, 10)}


def test_every_charged_group_is_counted_limited_or_not() -> None:
    days = DayCounters("me", "me")
    days.settle(admit(days, groups=("child", "root"), tokens=9), 1, 7)
    assert days.total("child", SLUG, DAY) == days.total("root", SLUG, DAY) == (1, 7)
    assert refused_by(days, limit(TOKEN, 7, "root")).counting_group == "root"


def test_a_decision_takes_over_the_rows_it_counts() -> None:
    days = DayCounters("me", "me")
    for sequence in (4, 5, 6):
        days.settle(admit(days), sequence, sequence)
    told(days, 1, requests=12, tokens=509, through=5)
    assert days.total("g1", SLUG, DAY) == (13, 515)


def test_a_row_that_a_decision_already_counts_is_dropped_when_it_settles() -> None:
    days = DayCounters("me", "me")
    taken = admit(days, tokens=100)
    told(days, 1, requests=1, tokens=30, through=8)
    days.settle(taken, 8, 30)
    assert days.total("g1", SLUG, DAY) == (1, 30)


def test_lanes_are_added_up_and_each_counts_its_own_rows() -> None:
    days = DayCounters("me", "me")
    restore(days, 3, 50, instance="old")
    days.settle(admit(days), 2, 7)
    told(days, 1, requests=1, tokens=7, through=3)
    assert days.total("g1", SLUG, DAY) == (2, 57)
    told(days, 1, requests=1, tokens=50, through=3, lane="old")
    assert days.total("g1", SLUG, DAY) == (2, 57)


@pytest.mark.parametrize("stale", [5, 4])
def test_a_part_that_is_not_newer_is_ignored(stale: int) -> None:
    days = DayCounters("me", "me")
    told(days, 5, requests=3, tokens=30, through=7)
    told(days, stale, requests=1, tokens=10, through=6)
    assert days.total("g1", SLUG, DAY) == (3, 30)


def test_an_offset_that_duplicates_moved_counts_without_a_new_version() -> None:
    days = DayCounters("me", "me")
    told(days, 5, requests=1, tokens=10, through=1)
    restore(days, 2, 10)
    assert days.total("g1", SLUG, DAY) == (2, 20)
    told(days, 5, requests=1, tokens=10, through=2)
    assert days.total("g1", SLUG, DAY) == (1, 10), "the row was a duplicate of what is counted"


def test_whole_counts_rows_of_which_no_part_says_more() -> None:
    days = DayCounters("me", "me")
    for sequence in (1, 2, 3):
        restore(days, sequence, 10, "g1", "root")
    told(days, 1, requests=1, tokens=10, through=1)
    days.take_whole("me", 3)
    assert days.total("g1", SLUG, DAY) == (2, 20), "the part holds 1, the lane has passed 2, and 3 is left"
    assert days.total("root", SLUG, DAY) == (1, 10), "of a counter that no part names the lane counts nothing"
    days.take_whole("me", 2)
    restore(days, 2, 10)
    assert days.total("g1", SLUG, DAY) == (2, 20), "it never goes back"


def apart(lanes: int = 2) -> DayCounters:
    """Return counters beside Kafka, whose trees lie in the lane that their name ends with."""
    days = DayCounters("me")
    days.use_lanes(range(lanes), lambda root, *_: int(root[-1]) % lanes)
    return days


def test_a_row_is_counted_only_once_its_offset_is_known() -> None:
    days = apart()
    days.settle(admit(days), 1, 10)
    days.take_part("g1", SLUG, DAY, 1, LanePart(1, 9, 1, 10))
    assert days.total("g1", SLUG, DAY) == (2, 20), "it may be sent a second time"
    days.acknowledge(1, "me", [(1, 8)])
    assert days.total("g1", SLUG, DAY) == (1, 10)


def test_an_acknowledged_row_waits_for_its_offset() -> None:
    days = apart()
    for sequence in (1, 2):
        days.settle(admit(days), sequence, 10)
    days.acknowledge(1, "me", [(1, 8), (2, 9)])
    days.take_part("g1", SLUG, DAY, 1, LanePart(1, 9, 1, 10))
    assert days.total("g1", SLUG, DAY) == (2, 20)
    days.take_whole(0, 100)
    assert days.total("g1", SLUG, DAY) == (2, 20), "another lane's"
    days.take_whole(1, 10)
    assert days.total("g1", SLUG, DAY) == (1, 10)


def test_a_row_may_go_once_its_lane_has_passed_it() -> None:
    days = apart()
    days.take_part("g1", SLUG, DAY, 1, LanePart(1, 9, 1, 10))
    assert not days.may_go(("g1",), SLUG, DAY, "me", 1, 8), "a part is of one counter"
    days.take_whole(1, 9)
    assert days.may_go(("g1",), SLUG, DAY, "me", 1, 8)
    assert not days.may_go(("g1",), SLUG, DAY, "me", 2, 9)
    assert not days.may_go(("g2",), SLUG, DAY, "me", 1, 8), "another lane's"


def by_sequence(version: int, requests: int, counted: dict[str, int], group: str = "g1") -> DecisionBySequence:
    return DecisionBySequence(
        group_id=group, model_slug=SLUG, day=DAY, requests=requests, tokens=requests, counted=counted, version=version
    )


def test_words_by_sequence_hold_until_each_lane_has_told_whole() -> None:
    days = apart()
    for sequence in (1, 2, 3):
        days.settle(admit(days), sequence, 1)
    days.acknowledge(1, "me", [(1, 5), (2, 6), (3, 7)])
    days.take_by_sequence(by_sequence(4, 10, {"me": 1, "other": 9}))
    assert days.total("g1", SLUG, DAY) == (12, 12), "two rows are not in it"
    assert days.may_go(("g1",), SLUG, DAY, "me", 1, 5)
    assert not days.may_go(("g1",), SLUG, DAY, "me", 2, 6)
    days.take_by_sequence(by_sequence(3, 2, {"me": 1}))
    days.take_by_sequence(by_sequence(4, 10, {"me": 2}))
    assert days.total("g1", SLUG, DAY) == (11, 11)

    days.take_part("g1", SLUG, DAY, 1, LanePart(5, 7, 12, 12))
    days.take_whole(1, 7)
    assert days.total("g1", SLUG, DAY) == (11, 11), "lane 0 has not told"
    days.take_whole(0, 0)
    assert days.total("g1", SLUG, DAY) == (13, 13)
    days.take_by_sequence(by_sequence(6, 1, {}))
    assert days.total("g1", SLUG, DAY) == (13, 13), "that version is gone"


def test_a_word_by_sequence_that_comes_after_a_part_is_old() -> None:
    days = apart()
    days.take_part("g1", SLUG, DAY, 1, LanePart(5, 7, 12, 12))
    days.take_by_sequence(by_sequence(4, 10, {}))
    assert days.total("g1", SLUG, DAY) == (12, 12)


def test_version_zero_is_a_part_too() -> None:
    days = DayCounters("me", "me")
    told(days, 0, requests=3, tokens=30)
    assert days.total("g1", SLUG, DAY) == (3, 30)


def test_restored_rows_count_once_and_for_every_charged_group() -> None:
    days = DayCounters("me", "me")
    told(days, 1, requests=1, tokens=5, through=1)
    for sequence in (1, 2, 2):
        restore(days, sequence, 5, "g1", "root")
    assert days.total("g1", SLUG, DAY) == (2, 10)
    assert days.total("root", SLUG, DAY) == (2, 10)


def test_rows_may_settle_out_of_order() -> None:
    days = DayCounters("me", "me")
    for sequence in (2, 9, 3):
        days.settle(admit(days), sequence, 10)
    told(days, 1, requests=2, tokens=20, through=3)
    assert days.total("g1", SLUG, DAY) == (3, 30)


def test_limits_may_change_in_the_middle_of_the_day() -> None:
    days = DayCounters("me", "me")
    admit(days, limit(REQUEST, 1))
    refused_by(days, limit(REQUEST, 1))
    admit(days, limit(REQUEST, 2))
    refused_by(days, limit(REQUEST, 1))
    admit(days)
    assert days.total("g1", SLUG, DAY) == (3, 30)


def test_days_and_slugs_are_apart() -> None:
    days = DayCounters("me", "me")
    admit(days, limit(REQUEST, 1))
    admit(days, limit(REQUEST, 1), day=DAY + timedelta(days=1))
    assert isinstance(days.reserve(DAY, "lab/other", ("g1",), [limit(REQUEST, 1)], 10), DayReservation)


def test_a_request_counts_for_the_day_of_its_admission() -> None:
    days = DayCounters("me", "me")
    late = admit(days)
    admit(days, day=DAY + timedelta(days=1))
    days.settle(late, 1, 77)
    assert days.total("g1", SLUG, DAY) == (1, 77)
    assert days.total("g1", SLUG, DAY + timedelta(days=1)) == (1, 10)


def test_forgotten_days_stay_forgotten_and_what_is_in_flight_ends_harmlessly() -> None:
    days = DayCounters("me", "me")
    flying = admit(days)
    tomorrow = DAY + timedelta(days=1)
    admit(days, day=tomorrow)
    days.forget(tomorrow)
    days.forget(DAY)  # an earlier day brings nothing back
    days.settle(flying, 1, 5)
    told(days, 9, requests=3, tokens=30)
    restore(days, 2, 5)
    assert days.total("g1", SLUG, DAY) == (0, 0)
    assert days.total("g1", SLUG, tomorrow) == (1, 10)
    assert len(days) == 1
    told(days, 1, requests=3, tokens=30, day=tomorrow)
    assert days.total("g1", SLUG, tomorrow) == (4, 40), "the oldest day that is kept takes decisions"


def test_the_oldest_row_that_is_awaited_is_told_by_instance() -> None:
    days = DayCounters("me", "me")
    assert days.oldest_awaited(DAY) == {}
    for instance, sequence in (("me", 7), ("me", 5), ("old", 9)):
        restore(days, sequence, 10, "g1", "root", instance=instance)
    assert days.oldest_awaited(DAY) == {"me": 5, "old": 9}
    assert days.oldest_awaited(DAY + timedelta(days=1)) == {}
    told(days, 1, 2, 20, 7)
    told(days, 1, 1, 10, 9, lane="old")
    assert days.oldest_awaited(DAY) == {"me": 5, "old": 9}, "the root's totals do not hold them yet"
    told(days, 1, 2, 20, 5, group="root")
    assert days.oldest_awaited(DAY) == {"me": 7, "old": 9}


@pytest.mark.parametrize("sequences", [(3, 7), (7, 3)])
def test_of_rows_that_several_counters_await_the_oldest_is_told(sequences: tuple[int, int]) -> None:
    days = DayCounters("me", "me")
    for group, sequence in zip(("g1", "g2"), sequences, strict=True):
        restore(days, sequence, 10, group)
    assert days.oldest_awaited(DAY) == {"me": 3}


def test_asking_makes_no_counter() -> None:
    days = apart()
    days.may_go(("g1",), SLUG, DAY, "me", 1, 1)
    assert len(days) == 0


def test_a_restored_row_that_is_counted_is_in_the_sum_once_whichever_comes_first() -> None:
    """Rows 3 to 5 remain in the spool; metering counts up to 4, of which 1 and 2 are gone from the spool."""
    for decision_first in (True, False):
        days = DayCounters("me", "me")
        if decision_first:
            told(days, 7, 4, 40, 4)
        for sequence in (3, 4, 5):
            restore(days, sequence, 10)
        if not decision_first:
            told(days, 7, 4, 40, 4)
        assert days.total("g1", SLUG, DAY) == (5, 50)
