"""Rate windows: admission, settlement, refusals, headers (contract 3.1)."""

import pytest

from proxy.limits.windows import RateWindows, Refusal, Reservation, WindowLimit
from schemas.limits import LimitType, RateLimitUnit

SLUG = "lab/model"
START = 1_000_000.0


def rate(
    threshold: int,
    type_: LimitType = LimitType.REQUEST,
    unit: RateLimitUnit = RateLimitUnit.SECOND,
    group: str = "g1",
    source: str = "root",
) -> WindowLimit:
    return WindowLimit(type_, unit, threshold, source, group)


def admit(windows: RateWindows, limits: list[WindowLimit], now: float, tokens: int = 0) -> Reservation:
    taken = windows.reserve(SLUG, limits, tokens, now)
    assert isinstance(taken, Reservation)
    return taken


def refuse(windows: RateWindows, limits: list[WindowLimit], now: float, tokens: int = 0) -> Refusal:
    refused = windows.reserve(SLUG, limits, tokens, now)
    assert isinstance(refused, Refusal)
    return refused


def remaining(windows: RateWindows, limit: WindowLimit, now: float) -> int:
    (standing,) = windows.standings(SLUG, [limit], now)
    return standing.remaining


def test_no_limits_admit_everything_and_keep_nothing() -> None:
    windows = RateWindows()
    windows.settle(admit(windows, [], START, tokens=10**9), 5, START)
    assert len(windows) == 0


def test_the_place_after_the_last_is_refused_and_names_its_limit() -> None:
    windows = RateWindows()
    limit = rate(2)
    admit(windows, [limit], START)
    admit(windows, [limit], START)
    assert refuse(windows, [limit], START).limit is limit


@pytest.mark.parametrize(("unit", "unit_s"), [(RateLimitUnit.SECOND, 1), (RateLimitUnit.MINUTE, 60)])
@pytest.mark.parametrize("threshold", [1, 5, 10, 1000])
def test_a_client_that_calls_exactly_at_its_limit_is_never_refused(
    unit: RateLimitUnit, unit_s: int, threshold: int
) -> None:
    windows, limit = RateWindows(), rate(threshold, unit=unit)
    for number in range(3 * threshold):
        admit(windows, [limit], START + 0.049 + number * unit_s / threshold)
    refuse(windows, [limit], START + 0.049 + (3 * threshold - 1) * unit_s / threshold)


def test_a_place_is_free_just_when_its_unit_is_over() -> None:
    windows = RateWindows()
    limit = rate(1)
    admit(windows, [limit], START + 0.049)
    assert refuse(windows, [limit], START + 1.048).retry_after_ms == 1
    admit(windows, [limit], START + 1.049)


@pytest.mark.parametrize("threshold", [1001, 2**53])
def test_above_a_thousand_a_place_is_free_at_most_one_sub_bucket_later(threshold: int) -> None:
    windows = RateWindows()
    limit = rate(threshold)
    windows._counter(SLUG, limit, round((START + 0.049) * 1e6)).add(int(START * 20), threshold)
    assert refuse(windows, [limit], START + 1.049).retry_after_ms == 1  # the sub-bucket [START, START + 0.05)
    admit(windows, [limit], START + 1.05)


def test_a_minute_has_sub_buckets_of_three_seconds() -> None:
    windows = RateWindows()
    limit = rate(1, LimitType.TOKEN, RateLimitUnit.MINUTE)
    start = 3_000_000.0
    windows.settle(admit(windows, [limit], start, tokens=1), 1, start)
    refused = refuse(windows, [limit], start + 0.5)
    assert (refused.retry_after_ms, refused.retry_after_s) == (62_500, 62.5)
    refuse(windows, [limit], start + 62.999)
    admit(windows, [limit], start + 63)


def test_retry_after_is_rounded_up_to_whole_milliseconds() -> None:
    windows = RateWindows()
    limit = rate(1)
    admit(windows, [limit], START)
    assert refuse(windows, [limit], START + 0.949_999).retry_after_ms == 51  # 50.001 ms


def test_a_lone_request_is_never_refused_for_its_own_size() -> None:
    windows = RateWindows()
    limit = rate(10, LimitType.TOKEN)
    admit(windows, [limit], START, tokens=1_000_000)
    refuse(windows, [limit], START, tokens=0)


def test_tokens_are_admitted_while_below_the_threshold() -> None:
    windows = RateWindows()
    limit = rate(10, LimitType.TOKEN)
    admit(windows, [limit], START, tokens=9)
    admit(windows, [limit], START, tokens=9)
    refuse(windows, [limit], START, tokens=9)


def test_a_refund_goes_to_the_sub_bucket_of_the_admission() -> None:
    windows = RateWindows()
    limit = rate(100, LimitType.TOKEN)
    first = admit(windows, [limit], START, tokens=60)
    admit(windows, [limit], START + 0.5, tokens=30)
    windows.settle(first, 20, START + 0.6)
    assert remaining(windows, limit, START + 0.6) == 50
    assert remaining(windows, limit, START + 1.05) == 70  # the first has left as 20, the second stays as 30


def test_a_refund_after_the_admission_has_left_is_void() -> None:
    windows = RateWindows()
    limit = rate(100, LimitType.TOKEN)
    first = admit(windows, [limit], START, tokens=60)
    admit(windows, [limit], START + 1.06, tokens=30)
    windows.settle(first, 0, START + 1.06)
    assert remaining(windows, limit, START + 1.06) == 70


def test_what_exceeds_the_estimate_leaves_with_the_admission_while_that_counts() -> None:
    windows = RateWindows()
    limit = rate(100, LimitType.TOKEN)
    taken = admit(windows, [limit], START, tokens=10)
    windows.settle(taken, 50, START + 1)
    assert remaining(windows, limit, START + 1) == 50
    assert remaining(windows, limit, START + 1.05) == 100


def test_what_exceeds_the_estimate_counts_now_once_the_admission_has_left() -> None:
    windows = RateWindows()
    limit = rate(100, LimitType.TOKEN)
    taken = admit(windows, [limit], START, tokens=10)
    windows.settle(taken, 50, START + 7)
    assert remaining(windows, limit, START + 7) == 60
    assert remaining(windows, limit, START + 8) == 60
    assert remaining(windows, limit, START + 8.05) == 100


def test_release_gives_tokens_back_but_not_the_place_in_a_request_window() -> None:
    windows = RateWindows()
    requests, tokens = rate(1), rate(100, LimitType.TOKEN)
    windows.release(admit(windows, [requests, tokens], START, tokens=70), START)
    assert remaining(windows, tokens, START) == 100
    assert remaining(windows, requests, START) == 0


@pytest.mark.parametrize("second_end", ["settle", "release"])
def test_a_reservation_ends_once(second_end: str) -> None:
    windows = RateWindows()
    limit = rate(100, LimitType.TOKEN)
    taken = admit(windows, [limit], START, tokens=40)
    windows.settle(taken, 30, START)
    if second_end == "settle":
        windows.settle(taken, 90, START)
    else:
        windows.release(taken, START)
    assert remaining(windows, limit, START) == 70


def test_where_the_third_ancestor_refuses_nothing_is_taken_from_the_others() -> None:
    windows = RateWindows()
    limits = [rate(1 if level == 2 else 10, group=f"level{level}") for level in range(5)]
    admit(windows, limits, START)
    assert refuse(windows, limits, START).limit.counting_group == "level2"
    assert [remaining(windows, limit, START) for limit in limits] == [9, 9, 0, 9, 9]


def test_windows_of_other_groups_slugs_types_and_units_are_apart() -> None:
    windows = RateWindows()
    admit(windows, [rate(1)], START)
    admit(windows, [rate(1, group="g2")], START)
    admit(windows, [rate(1, unit=RateLimitUnit.MINUTE)], START)
    admit(windows, [rate(1, LimitType.TOKEN)], START)
    assert isinstance(windows.reserve("lab/other", [rate(1)], 0, START), Reservation)


def test_groups_that_inherit_one_limit_have_a_window_each() -> None:
    windows = RateWindows()
    admit(windows, [rate(1, group="child", source="parent")], START)
    admit(windows, [rate(1, group="sibling", source="parent")], START)
    refuse(windows, [rate(1, group="child", source="parent")], START)


def test_a_limit_that_another_group_sets_now_finds_the_content_it_left() -> None:
    windows = RateWindows()
    admit(windows, [rate(1, source="parent")], START)
    refuse(windows, [rate(1, source="g1")], START)


def test_a_changed_threshold_finds_the_content_it_left() -> None:
    windows = RateWindows()
    for _ in range(3):
        admit(windows, [rate(3)], START)
    assert remaining(windows, rate(5), START) == 2
    assert remaining(windows, rate(2), START) == 0
    lowered = refuse(windows, [rate(2)], START + 0.1)
    assert lowered.retry_after_ms == 900


@pytest.mark.parametrize("above", [1001, 5000])
def test_a_threshold_lowered_to_what_is_logged_finds_what_the_sub_buckets_hold(above: int) -> None:
    windows = RateWindows()
    for _ in range(1001):
        admit(windows, [rate(above)], START)
    assert refuse(windows, [rate(1000)], START + 0.5).retry_after_ms == 550  # until the log knows a whole unit
    for number in range(2):
        admit(windows, [rate(2)], START + 2 + number / 2)
    admit(windows, [rate(2)], START + 3)  # exact again


def test_a_threshold_raised_and_lowered_again_misses_nothing() -> None:
    windows = RateWindows()
    admit(windows, [rate(1)], START)
    for _ in range(5):
        admit(windows, [rate(5000)], START + 0.1)
    refuse(windows, [rate(6)], START + 0.2)
    admit(windows, [rate(7)], START + 0.2)


def test_a_lowered_threshold_waits_until_enough_has_left() -> None:
    windows = RateWindows()
    for step in range(4):
        admit(windows, [rate(4)], START + step * 0.1)
    refused = refuse(windows, [rate(2)], START + 0.3)
    assert refused.retry_after_ms == 900  # three must go; the third came at START + 0.2
    refuse(windows, [rate(2)], START + 1.199)
    admit(windows, [rate(2)], START + 1.2)


def test_a_clock_that_steps_back_reopens_no_window() -> None:
    windows = RateWindows()
    admit(windows, [rate(1)], START)
    refused = refuse(windows, [rate(1)], START - 3600)
    assert refused.retry_after_ms == 3_601_000
    admit(windows, [rate(1)], START - 3600 + refused.retry_after_s)


def test_idle_counters_are_forgotten_and_busy_ones_kept() -> None:
    windows = RateWindows()
    admit(windows, [rate(1, group="idle")], START)
    admit(windows, [rate(1, group="busy")], START + 5)
    windows.forget_idle(START + 5)
    assert len(windows) == 1
    refuse(windows, [rate(1, group="busy")], START + 5)


def test_forgetting_goes_on_where_it_stopped() -> None:
    windows = RateWindows()
    for number in range(25):
        admit(windows, [rate(1, group=str(number))], START)
    sizes = []
    for _ in range(3):
        windows.forget_idle(START + 2, at_most=10)
        sizes.append(len(windows))
    assert sizes == [15, 5, 0]


def test_forgetting_passes_over_busy_counters_to_those_behind_them() -> None:
    windows = RateWindows()
    for number in range(25):
        admit(windows, [rate(1, group=str(number))], START if number < 15 else START + 2)
    sizes = []
    for _ in range(3):
        windows.forget_idle(START + 2, at_most=10)
        sizes.append(len(windows))
    assert sizes == [25, 15, 10]


def test_what_settles_after_its_counter_was_forgotten_still_counts() -> None:
    windows = RateWindows()
    limit = rate(100, LimitType.TOKEN)
    taken = admit(windows, [limit], START, tokens=10)
    windows.forget_idle(START + 5)
    assert len(windows) == 0
    windows.settle(taken, 50, START + 6)
    assert remaining(windows, limit, START + 6) == 60
