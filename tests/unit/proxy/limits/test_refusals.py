"""What a refusal of rate limits and the standings name, and how long they ask to wait (contract 3.1)."""

from proxy.limits.windows import RateWindows
from schemas.limits import LimitType, RateLimitUnit
from tests.unit.proxy.limits.test_windows import SLUG, START, admit, rate, refuse


def test_a_refusal_names_the_limit_that_lasts_and_so_do_the_headers() -> None:
    windows = RateWindows()
    start = 3_000_000.0
    child, root = rate(2, group="child"), rate(2, unit=RateLimitUnit.MINUTE, group="root")
    for limits in ([child, root], [root, child]):
        for _ in range(2):
            windows.reserve(SLUG, limits, 0, start)
        refused = refuse(windows, limits, start)
        assert (refused.limit, refused.retry_after_ms) == (root, 60_000)
        (standing,) = refused.standings
        assert (standing.limit, standing.reset_s) == (root, 60)


def test_a_refusal_that_rests_on_reservations_asks_for_a_second_at_most() -> None:
    windows, limit = RateWindows(), rate(100, LimitType.TOKEN, RateLimitUnit.MINUTE)
    first = admit(windows, [limit], START, tokens=200)
    assert refuse(windows, [limit], START).retry_after_ms == 1000
    windows.settle(first, 15, START + 0.6)
    second = admit(windows, [limit], START + 0.6, tokens=200)
    windows.settle(second, 85, START + 0.7)
    assert refuse(windows, [limit], START + 0.7).retry_after_ms > 50_000  # what was used fills the minute now


def test_a_refusal_that_rests_on_reservations_asks_for_less_where_the_window_ends_sooner() -> None:
    windows, limit = RateWindows(), rate(100, LimitType.TOKEN)
    admit(windows, [limit], START, tokens=200)
    assert refuse(windows, [limit], START + 0.9).retry_after_ms == 150


def test_a_refusal_by_what_was_used_does_not_wait_for_reservations_to_leave() -> None:
    windows, limit = RateWindows(), rate(100, LimitType.TOKEN, RateLimitUnit.MINUTE)
    start = 3_000_000.0
    windows.settle(admit(windows, [limit], start, tokens=1), 99, start)
    admit(windows, [limit], start + 30, tokens=200)
    windows.settle(admit(windows, [rate(10**6, LimitType.TOKEN, RateLimitUnit.MINUTE)], start + 31, tokens=1), 1, start)
    # used: 100 until start + 63; the reservation alone would last until start + 93
    assert refuse(windows, [limit], start + 40).retry_after_ms == 23_000


def test_a_threshold_of_zero_admits_nothing_and_asks_for_its_unit() -> None:
    for type_ in (LimitType.REQUEST, LimitType.TOKEN):
        for unit, unit_ms in ((RateLimitUnit.SECOND, 1000), (RateLimitUnit.MINUTE, 60_000)):
            windows, limit = RateWindows(), rate(0, type_, unit)
            refused = refuse(windows, [limit], START, tokens=0)
            assert (refused.limit, refused.retry_after_ms, refused.standings[0].remaining) == (limit, unit_ms, 0)


def test_standings_name_the_limit_of_each_type_with_the_least_remaining() -> None:
    windows = RateWindows()
    near, far = rate(5, group="child"), rate(3, group="parent")
    tokens = rate(100, LimitType.TOKEN, RateLimitUnit.MINUTE)
    start = 3_000_000.0
    requests_left, tokens_left = admit(windows, [near, far, tokens], start + 0.01, tokens=30).standings
    assert (requests_left.limit, requests_left.remaining, requests_left.reset_s) == (far, 2, 1.0)
    assert (tokens_left.limit, tokens_left.remaining, tokens_left.reset_s) == (tokens, 70, 62.99)


def test_of_limits_with_the_same_remaining_the_one_that_resets_last_is_shown() -> None:
    first, second = rate(5, group="child"), rate(5, unit=RateLimitUnit.MINUTE, group="child")
    for limits in ([first, second], [second, first]):
        (standing,) = admit(RateWindows(), limits, START).standings
        assert standing.limit is second


def test_a_refusal_shows_the_limit_that_it_names_where_two_are_full() -> None:
    windows, start = RateWindows(), 3_000_000.0
    first, second = rate(40, LimitType.TOKEN, group="d"), rate(20, LimitType.TOKEN, group="e")
    for tokens, now in ((10, start), (30, start + 0.05)):
        windows.settle(admit(windows, [first, second], now, tokens=tokens), tokens, now)
    refused = refuse(windows, [first, second], start + 0.05)  # both reset at once, but the second admits later
    assert (refused.limit, [each.limit for each in refused.standings]) == (second, [second])


def test_standings_of_an_untouched_limit_are_whole_and_reset_at_once() -> None:
    (standing,) = RateWindows().standings(SLUG, [rate(7)], START)
    assert (standing.remaining, standing.reset_s) == (7, 0.0)


def test_reset_is_when_the_newest_content_has_left() -> None:
    windows = RateWindows()
    limit = rate(10)
    admit(windows, [limit], START)
    admit(windows, [limit], START + 0.5)
    (standing,) = windows.standings(SLUG, [limit], START + 0.9)
    assert standing.reset_s == 0.6


def test_remaining_is_never_negative() -> None:
    windows = RateWindows()
    limit = rate(10, LimitType.TOKEN)
    (standing,) = admit(windows, [limit], START, tokens=1000).standings
    assert standing.remaining == 0
    assert refuse(windows, [limit], START).standings[0].remaining == 0
