"""Rate windows: admission, settlement, refusals, headers (contract 3.1)."""

import pytest

from proxy.limits.windows import Refusal, Reservation, WindowLimit, Windows
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


def admit(windows: Windows, limits: list[WindowLimit], now: float, tokens: int = 0) -> Reservation:
    taken = windows.reserve(SLUG, limits, tokens, now)
    assert isinstance(taken, Reservation)
    return taken


def refuse(windows: Windows, limits: list[WindowLimit], now: float, tokens: int = 0) -> Refusal:
    refused = windows.reserve(SLUG, limits, tokens, now)
    assert isinstance(refused, Refusal)
    return refused


def remaining(windows: Windows, limit: WindowLimit, now: float) -> int:
    (standing,) = windows.standings(SLUG, [limit], now)
    return standing.remaining


def test_no_limits_admit_everything_and_keep_nothing() -> None:
    windows = Windows()
    windows.settle(admit(windows, [], START, tokens=10**9), 5, START)
    assert len(windows) == 0


def test_the_place_after_the_last_is_refused_and_names_its_limit() -> None:
    windows = Windows()
    limit = rate(2)
    admit(windows, [limit], START)
    admit(windows, [limit], START)
    assert refuse(windows, [limit], START).limit is limit


def test_a_place_is_free_a_unit_and_at_most_one_sub_bucket_later() -> None:
    windows = Windows()
    limit = rate(1)
    admit(windows, [limit], START + 0.049)  # the sub-bucket [START, START + 0.05)
    assert refuse(windows, [limit], START + 1.049).retry_after_ms == 1
    admit(windows, [limit], START + 1.05)


def test_a_minute_has_sub_buckets_of_three_seconds() -> None:
    windows = Windows()
    limit = rate(1, unit=RateLimitUnit.MINUTE)
    start = 3_000_000.0
    admit(windows, [limit], start)
    refused = refuse(windows, [limit], start + 0.5)
    assert (refused.retry_after_ms, refused.retry_after_s) == (62_500, 62.5)
    refuse(windows, [limit], start + 62.999)
    admit(windows, [limit], start + 63)


def test_retry_after_is_rounded_up_to_whole_milliseconds() -> None:
    windows = Windows()
    limit = rate(1)
    admit(windows, [limit], START)
    assert refuse(windows, [limit], START + 0.999_999).retry_after_ms == 51  # 50.001 ms


def test_a_refusal_waits_for_the_slowest_limit_but_names_the_first() -> None:
    windows = Windows()
    start = 3_000_000.0
    quick, slow = rate(1), rate(1, LimitType.TOKEN, RateLimitUnit.MINUTE)
    admit(windows, [quick, slow], start, tokens=5)
    refused = refuse(windows, [quick, slow], start)
    assert (refused.limit, refused.retry_after_ms) == (quick, 63_000)


def test_a_lone_request_is_never_refused_for_its_own_size() -> None:
    windows = Windows()
    limit = rate(10, LimitType.TOKEN)
    admit(windows, [limit], START, tokens=1_000_000)
    refuse(windows, [limit], START, tokens=0)


def test_tokens_are_admitted_while_below_the_threshold() -> None:
    windows = Windows()
    limit = rate(10, LimitType.TOKEN)
    admit(windows, [limit], START, tokens=9)
    admit(windows, [limit], START, tokens=9)
    refuse(windows, [limit], START, tokens=9)


def test_a_refund_goes_to_the_sub_bucket_of_the_admission() -> None:
    windows = Windows()
    limit = rate(100, LimitType.TOKEN)
    first = admit(windows, [limit], START, tokens=60)
    admit(windows, [limit], START + 0.5, tokens=30)
    windows.settle(first, 20, START + 0.6)
    assert remaining(windows, limit, START + 0.6) == 50
    assert remaining(windows, limit, START + 1.05) == 70  # the first has left as 20, the second stays as 30


def test_a_refund_after_the_admission_has_left_is_void() -> None:
    windows = Windows()
    limit = rate(100, LimitType.TOKEN)
    first = admit(windows, [limit], START, tokens=60)
    admit(windows, [limit], START + 1.06, tokens=30)
    windows.settle(first, 0, START + 1.06)
    assert remaining(windows, limit, START + 1.06) == 70


def test_what_exceeds_the_estimate_leaves_with_the_admission_while_that_counts() -> None:
    windows = Windows()
    limit = rate(100, LimitType.TOKEN)
    taken = admit(windows, [limit], START, tokens=10)
    windows.settle(taken, 50, START + 1)
    assert remaining(windows, limit, START + 1) == 50
    assert remaining(windows, limit, START + 1.05) == 100


def test_what_exceeds_the_estimate_counts_now_once_the_admission_has_left() -> None:
    windows = Windows()
    limit = rate(100, LimitType.TOKEN)
    taken = admit(windows, [limit], START, tokens=10)
    windows.settle(taken, 50, START + 7)
    assert remaining(windows, limit, START + 7) == 60
    assert remaining(windows, limit, START + 8) == 60
    assert remaining(windows, limit, START + 8.05) == 100


def test_release_gives_tokens_back_but_not_the_place_in_a_request_window() -> None:
    windows = Windows()
    requests, tokens = rate(1), rate(100, LimitType.TOKEN)
    windows.release(admit(windows, [requests, tokens], START, tokens=70), START)
    assert remaining(windows, tokens, START) == 100
    assert remaining(windows, requests, START) == 0


@pytest.mark.parametrize("second_end", ["settle", "release"])
def test_a_reservation_ends_once(second_end: str) -> None:
    windows = Windows()
    limit = rate(100, LimitType.TOKEN)
    taken = admit(windows, [limit], START, tokens=40)
    windows.settle(taken, 30, START)
    if second_end == "settle":
        windows.settle(taken, 90, START)
    else:
        windows.release(taken, START)
    assert remaining(windows, limit, START) == 70


def test_where_the_third_ancestor_refuses_nothing_is_taken_from_the_others() -> None:
    windows = Windows()
    limits = [rate(1 if level == 2 else 10, group=f"level{level}") for level in range(5)]
    admit(windows, limits, START)
    assert refuse(windows, limits, START).limit.counting_group == "level2"
    assert [remaining(windows, limit, START) for limit in limits] == [9, 9, 0, 9, 9]


def test_windows_of_other_groups_slugs_types_and_units_are_apart() -> None:
    windows = Windows()
    admit(windows, [rate(1)], START)
    admit(windows, [rate(1, group="g2")], START)
    admit(windows, [rate(1, unit=RateLimitUnit.MINUTE)], START)
    admit(windows, [rate(1, LimitType.TOKEN)], START)
    assert isinstance(windows.reserve("lab/other", [rate(1)], 0, START), Reservation)


def test_groups_that_inherit_one_limit_have_a_window_each() -> None:
    windows = Windows()
    admit(windows, [rate(1, group="child", source="parent")], START)
    admit(windows, [rate(1, group="sibling", source="parent")], START)
    refuse(windows, [rate(1, group="child", source="parent")], START)


def test_a_limit_that_another_group_sets_now_finds_the_content_it_left() -> None:
    windows = Windows()
    admit(windows, [rate(1, source="parent")], START)
    refuse(windows, [rate(1, source="g1")], START)


def test_a_changed_threshold_finds_the_content_it_left() -> None:
    windows = Windows()
    for _ in range(3):
        admit(windows, [rate(3)], START)
    assert remaining(windows, rate(5), START) == 2
    assert remaining(windows, rate(2), START) == 0
    lowered = refuse(windows, [rate(2)], START + 0.1)
    assert lowered.retry_after_ms == 950


def test_a_lowered_threshold_waits_until_enough_has_left() -> None:
    windows = Windows()
    for step in range(4):
        admit(windows, [rate(4)], START + step * 0.1)
    refused = refuse(windows, [rate(2)], START + 0.3)
    assert refused.retry_after_ms == 950  # three must go; the third came at START + 0.2
    refuse(windows, [rate(2)], START + 1.249)
    admit(windows, [rate(2)], START + 1.25)


def test_a_clock_that_steps_back_reopens_no_window() -> None:
    windows = Windows()
    admit(windows, [rate(1)], START)
    refused = refuse(windows, [rate(1)], START - 3600)
    assert refused.retry_after_ms == 3_601_050
    admit(windows, [rate(1)], START - 3600 + refused.retry_after_s)


def test_standings_name_the_limit_of_each_type_with_the_least_remaining() -> None:
    windows = Windows()
    near, far = rate(5, group="child"), rate(3, group="parent")
    tokens = rate(100, LimitType.TOKEN, RateLimitUnit.MINUTE)
    start = 3_000_000.0
    requests_left, tokens_left = admit(windows, [near, far, tokens], start + 0.01, tokens=30).standings
    assert (requests_left.limit, requests_left.remaining, requests_left.reset_s) == (far, 2, 1.04)
    assert (tokens_left.limit, tokens_left.remaining, tokens_left.reset_s) == (tokens, 70, 62.99)


def test_of_limits_with_the_same_remaining_the_first_is_shown() -> None:
    first, second = rate(5, group="child"), rate(5, unit=RateLimitUnit.MINUTE, group="child")
    (standing,) = admit(Windows(), [first, second], START).standings
    assert standing.limit is first


def test_standings_of_an_untouched_limit_are_whole_and_reset_at_once() -> None:
    (standing,) = Windows().standings(SLUG, [rate(7)], START)
    assert (standing.remaining, standing.reset_s) == (7, 0.0)


def test_reset_is_when_the_newest_content_has_left() -> None:
    windows = Windows()
    limit = rate(10)
    admit(windows, [limit], START)
    admit(windows, [limit], START + 0.5)
    (standing,) = windows.standings(SLUG, [limit], START + 0.9)
    assert standing.reset_s == 0.65


def test_remaining_is_never_negative() -> None:
    windows = Windows()
    limit = rate(10, LimitType.TOKEN)
    (standing,) = admit(windows, [limit], START, tokens=1000).standings
    assert standing.remaining == 0
    assert refuse(windows, [limit], START).standings[0].remaining == 0


def test_idle_counters_are_forgotten_and_busy_ones_kept() -> None:
    windows = Windows()
    admit(windows, [rate(1, group="idle")], START)
    admit(windows, [rate(1, group="busy")], START + 5)
    windows.forget_idle(START + 5)
    assert len(windows) == 1
    refuse(windows, [rate(1, group="busy")], START + 5)


def test_forgetting_goes_on_where_it_stopped() -> None:
    windows = Windows()
    for number in range(25):
        admit(windows, [rate(1, group=str(number))], START)
    sizes = []
    for _ in range(3):
        windows.forget_idle(START + 2, at_most=10)
        sizes.append(len(windows))
    assert sizes == [15, 5, 0]


def test_forgetting_passes_over_busy_counters_to_those_behind_them() -> None:
    windows = Windows()
    for number in range(25):
        admit(windows, [rate(1, group=str(number))], START if number < 15 else START + 2)
    sizes = []
    for _ in range(3):
        windows.forget_idle(START + 2, at_most=10)
        sizes.append(len(windows))
    assert sizes == [25, 15, 10]


def test_what_settles_after_its_counter_was_forgotten_still_counts() -> None:
    windows = Windows()
    limit = rate(100, LimitType.TOKEN)
    taken = admit(windows, [limit], START, tokens=10)
    windows.forget_idle(START + 5)
    assert len(windows) == 0
    windows.settle(taken, 50, START + 6)
    assert remaining(windows, limit, START + 6) == 60
