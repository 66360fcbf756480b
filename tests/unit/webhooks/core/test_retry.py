"""The retry rule of contract 5, case by case."""

from email.utils import format_datetime

import pytest

from tests.unit.webhooks import kit
from webhooks.core import retry
from webhooks.core.retry import (
    STANDARD,
    AttemptResult,
    Decision,
    Delivered,
    GiveUp,
    Leave,
    Policy,
    RetryAt,
    Split,
    Turn,
)

POLICY = Policy()


def turn(
    number: int = 1, *, planned_s: float = 0.0, began_s: float = 0.0, first_s: float = 0.0, was_away: bool = False
) -> Turn:
    return Turn(number, kit.after(first_s), kit.after(planned_s), kit.after(began_s), was_away)


def judge(outcome: AttemptResult, *, number: int = 1, at_s: float = 0.0, jitter: float = 0.0) -> Decision:
    """Judge an attempt that took no time, and began when it was planned."""
    return retry.decide(outcome, turn(number, planned_s=at_s, began_s=at_s), kit.after(at_s), POLICY, jitter)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(status: int) -> None:
    assert judge(kit.answered(status)) == Delivered()


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599, 408, 429])
def test_these_statuses_are_tried_again(status: int) -> None:
    assert judge(kit.answered(status)) == RetryAt(kit.after(1))


@pytest.mark.parametrize("status", [101, 300, 301, 302, 304, 307, 308, 400, 401, 403, 404, 409, 410, 422])
def test_other_statuses_end_it_at_once(status: int) -> None:
    refused = 400 <= status < 500
    assert judge(kit.answered(status, retry_after="1")) == GiveUp(f"answered {status}", refused=refused)


def test_timeouts_and_network_failures_are_tried_again() -> None:
    assert judge(kit.failed(), at_s=10) == RetryAt(kit.after(11))
    assert judge(AttemptResult(None, "ConnectError: refused", 1)) == RetryAt(kit.after(1))


def test_a_refused_url_ends_it_at_once() -> None:
    assert judge(AttemptResult(None, "refused: private", 0, final=True)) == GiveUp("refused: private")


def test_waits_double_to_five_seconds_until_the_bound() -> None:
    moments, at_s, number = [], 0.0, 1
    while isinstance(decision := judge(kit.answered(500), number=number, at_s=at_s), RetryAt):
        at_s = (decision.when - kit.START).total_seconds()
        moments.append(at_s)
        number += 1
    assert moments == [1, 3, 7, 12]
    assert decision == GiveUp("no success within the 15 s after the first attempt; the last: answered 500")


def test_jitter_adds_at_most_a_tenth() -> None:
    assert judge(kit.answered(500), jitter=1.0) == RetryAt(kit.after(1.1))
    assert judge(kit.answered(500), number=9, jitter=0.5) == RetryAt(kit.after(5.25))


def test_no_attempt_is_planned_at_the_bound() -> None:
    assert judge(kit.answered(500), at_s=13.9) == RetryAt(kit.after(14.9))
    assert isinstance(judge(kit.answered(500), at_s=14), GiveUp)


@pytest.mark.parametrize(("header", "wait_s"), [("3", 3), ("0", 1), ("1", 1), ("soon", 1), ("-5", 1), ("", 1)])
def test_retry_after_lengthens_a_wait(header: str, wait_s: float) -> None:
    assert judge(kit.answered(429, header)) == RetryAt(kit.after(wait_s))


@pytest.mark.parametrize("header", ["15", "60", "9" * 5000, format_datetime(kit.after(3600), usegmt=True)])
def test_retry_after_beyond_the_bound_ends_it_at_once(header: str) -> None:
    expected = "answered 503; its Retry-After lies beyond the 15 s after the first attempt"
    assert judge(kit.answered(503, header)) == GiveUp(expected)


def test_retry_after_within_the_bound_counts_from_now() -> None:
    assert judge(kit.answered(503, "4"), at_s=10) == RetryAt(kit.after(14))
    assert isinstance(judge(kit.answered(503, "4"), at_s=11), GiveUp)


def test_retry_after_may_be_a_date() -> None:
    assert judge(kit.answered(503, format_datetime(kit.after(6), usegmt=True))) == RetryAt(kit.after(6))
    assert retry.retry_after_s(format_datetime(kit.after(-60), usegmt=True), kit.START) == 0
    assert retry.retry_after_s("Thu, 01 Jan 2026 00:00:10 -0000", kit.START) == 10
    assert retry.retry_after_s("Thu, 99 Jan 2026 00:00:10 GMT", kit.START) is None


def timeout_s(*, planned_s: float, began_s: float, was_away: bool = False) -> float:
    return retry.attempt_timeout_s(turn(2, planned_s=planned_s, began_s=began_s, was_away=was_away), POLICY)


def test_an_attempt_has_ten_seconds_or_what_is_left() -> None:
    assert timeout_s(planned_s=0, began_s=0) == 10
    assert timeout_s(planned_s=5, began_s=5) == 10
    assert timeout_s(planned_s=11, began_s=11.5) == 3.5
    assert timeout_s(planned_s=14.99, began_s=15.2) == POLICY.shortest_attempt_s


@pytest.mark.parametrize(
    ("planned_s", "began_s", "has_s"),
    [(11, 12.5, 2.5), (11, 14.5, 1.0), (11, 16, 1.0), (3, 60, 1.0), (14.5, 17, 0.5), (14.95, 17, 0.1), (2, 4.5, 10)],
)
def test_a_queue_of_our_own_takes_time_of_an_attempt_but_not_the_last_second(
    planned_s: float, began_s: float, has_s: float
) -> None:
    assert timeout_s(planned_s=planned_s, began_s=began_s) == pytest.approx(has_s)


def test_an_attempt_that_our_own_queue_brought_behind_the_bound_is_the_last() -> None:
    late = turn(2, planned_s=14, began_s=17)
    assert isinstance(retry.decide(kit.failed(), late, kit.after(18), POLICY, 0.0), GiveUp)
    assert retry.decide(kit.answered(200), late, kit.after(18), POLICY, 0.0) == Delivered()


def test_a_first_attempt_that_waited_in_its_queue_is_not_late() -> None:
    waited = turn(1, first_s=2, planned_s=0, began_s=2)
    assert retry.attempt_timeout_s(waited, POLICY) == 10
    assert retry.decide(kit.failed(), waited, kit.after(12), POLICY, 0.0) == RetryAt(kit.after(13))
    assert retry.decide(kit.failed(), waited, kit.after(62), POLICY, 0.0) == RetryAt(kit.after(62))


def test_an_attempt_for_which_nobody_was_there_has_its_full_time_and_is_the_last() -> None:
    assert timeout_s(planned_s=3, began_s=60, was_away=True) == 10
    late = turn(2, planned_s=3, began_s=60, was_away=True)
    assert isinstance(retry.decide(kit.answered(500), late, kit.after(61), POLICY, 0.0), GiveUp)
    assert retry.decide(kit.answered(200), late, kit.after(61), POLICY, 0.0) == Delivered()


def test_an_attempt_during_which_the_dispatcher_stood_still_is_followed_by_one_more() -> None:
    stood_still = turn(1)
    decision = retry.decide(kit.failed(), stood_still, kit.after(60), POLICY, 0.0)
    assert decision == RetryAt(kit.after(60))
    assert retry.decide(kit.answered(503, "4"), stood_still, kit.after(60), POLICY, 0.0) == RetryAt(kit.after(64))
    assert isinstance(retry.decide(kit.answered(503, "15"), stood_still, kit.after(60), POLICY, 0.0), GiveUp)
    assert isinstance(retry.decide(kit.answered(410), stood_still, kit.after(60), POLICY, 0.0), GiveUp)
    assert timeout_s(planned_s=60, began_s=60.1) == 10
    more = turn(2, planned_s=60, began_s=60.1)
    assert isinstance(retry.decide(kit.failed(), more, kit.after(70.1), POLICY, 0.0), GiveUp)


@pytest.mark.parametrize("more", [turn(2, planned_s=60, began_s=60.1), turn(2, planned_s=3, began_s=60, was_away=True)])
def test_the_one_more_is_the_last_though_its_dispatcher_stood_still_again(more: Turn) -> None:
    assert isinstance(retry.decide(kit.failed(), more, kit.after(200), POLICY, 0.0), GiveUp)
    assert isinstance(retry.decide(kit.answered(503, "4"), more, kit.after(200), POLICY, 0.0), GiveUp)


def test_an_attempt_that_used_up_its_time_is_not_followed_by_one_more() -> None:
    last = turn(4, planned_s=12, began_s=12.5)
    assert isinstance(retry.decide(kit.failed(), last, kit.after(15.9), POLICY, 0.0), GiveUp)


def test_standing_still_within_the_bound_is_followed_by_one_more_where_the_bound_would_end_the_run() -> None:
    assert retry.decide(kit.failed(), turn(1), kit.after(14.5), POLICY, 0.0) == RetryAt(kit.after(14.5))
    assert retry.decide(kit.failed(), turn(1), kit.after(14), POLICY, 0.0) == RetryAt(kit.after(14)), "at the bound"
    assert retry.decide(kit.failed(), turn(1), kit.after(13), POLICY, 0.0) == RetryAt(kit.after(14))


def test_a_longer_policy_goes_on_longer() -> None:
    policy = Policy(bound_s=86_400, backoff_most_s=300)
    decision = retry.decide(kit.answered(500), turn(5000, planned_s=86_000), kit.after(86_000), policy, 0.0)
    assert decision == RetryAt(kit.after(86_300))


@pytest.mark.parametrize("outcome", [kit.failed(), *map(kit.answered, (302, 408, 429, 500, 503))])
def test_a_probe_that_failed_leaves_its_delivery_as_it_was(outcome: AttemptResult) -> None:
    assert retry.decide_probe(outcome) == Leave()
    assert retry.decide_probe(kit.answered(204)) == Delivered()


@pytest.mark.parametrize("status", [400, 404, 410, 422, 499])
def test_a_probe_that_was_refused_says_so(status: int) -> None:
    assert retry.decide_probe(kit.answered(status)) == Leave(refused=True)


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (Policy(), ()),
        (Policy(attempt_timeout_s=20), ("webhook_attempt_timeout_s (20) is above",)),
        (Policy(backoff_first_s=6), ("webhook_backoff_first_s (6) is above",)),
        (Policy(bound_s=10), ()),
        (Policy(bound_s=1, attempt_timeout_s=1), ("no delivery is ever tried a second time",)),
        (Policy(bound_s=5, backoff_first_s=20), ("webhook_attempt", "webhook_backoff_first_s", "a second time")),
    ],
)
def test_settings_that_contradict_each_other_are_named(policy: Policy, says: tuple[str, ...]) -> None:
    lines = retry.contradictions(policy)
    assert len(lines) == len(says)
    assert all(words in line for words, line in zip(says, lines, strict=True))


@pytest.mark.parametrize(
    "header",
    [
        "Fri, 31 Dec 9999 23:59:59 -0100",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Mon, 01 Jan 0001 00:00:00 +0100",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "9" * 4000,
    ],
)
def test_no_retry_after_is_more_than_a_wait_that_can_be_counted(header: str) -> None:
    wait_s = retry.retry_after_s(header, kit.START)
    assert wait_s is not None
    assert 0 <= wait_s <= 10**9
    assert isinstance(judge(kit.answered(503, retry_after=header)), GiveUp | RetryAt)


def test_a_body_that_is_too_large_is_split_once() -> None:
    at = (turn(), kit.START, POLICY, 0.0)
    assert retry.decide(kit.answered(413), *at, events=8) == Split()
    assert retry.decide(kit.answered(413), *at, events=1) == GiveUp("answered 413", refused=True)
    assert retry.decide(kit.answered(400), *at, events=8) == GiveUp("answered 400", refused=True)


@pytest.mark.parametrize("jitter", [0.0, 1.0])
def test_the_standard_schedule_ends_after_a_day_and_more(jitter: float) -> None:
    waits, at_s, number = [], 0.0, 1
    while True:
        at = turn(number, planned_s=at_s, began_s=at_s)
        decision = retry.decide(kit.answered(503), at, kit.after(at_s + 10), STANDARD, jitter)
        if not isinstance(decision, RetryAt):
            break
        assert decision.counts == (number == 1)
        began_s, at_s = at_s, (decision.when - kit.START).total_seconds()
        waits.append(at_s - began_s - 10)
        number += 1
    hour, more = 3600.0, 1 + 0.1 * jitter
    plain = [5, 300, 1800, 2 * hour, 5 * hour, 10 * hour, 10 * hour]
    assert waits == pytest.approx([one * more for one in plain])
    assert decision == GiveUp("no success in 8 attempts; the last: answered 503")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_the_standard_schedule_takes_these_for_the_receivers_state(status: int) -> None:
    assert judge(kit.answered(status)) == GiveUp(f"answered {status}", refused=True)
    decision = retry.decide(kit.answered(status), turn(), kit.START, STANDARD, 0.0)
    assert decision == RetryAt(kit.after(5), counts=True)
    refused = retry.decide(kit.answered(410), turn(), kit.START, STANDARD, 0.0)
    assert refused == GiveUp("answered 410", refused=True)
