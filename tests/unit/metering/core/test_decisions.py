"""Decisions on totals below, at and above their thresholds."""

from datetime import UTC, date, datetime, timedelta

import pytest

from domain import days, ledger_days
from domain.limit_tree import Threshold
from metering.core import decisions
from metering.core.sums import Counter, LimitTotal
from schemas.decisions import UsedUp
from schemas.limits import LimitType

TOTAL = LimitTotal(Counter(date(2024, 2, 29), "group-a", "org/model"), requests=10, tokens=500, version=7)


def test_a_decision_says_the_totals_and_how_far_they_count() -> None:
    marks = {"proxy-a": 12, "proxy-b": 3}
    decision = decisions.decide(TOTAL, (), marks)

    assert (decision.group_id, decision.model_slug, decision.day) == ("group-a", "org/model", date(2024, 2, 29))
    assert (decision.requests, decision.tokens, decision.version) == (10, 500, 7)
    assert decision.used_up == ()
    marks["proxy-a"] = 99
    assert decision.counted == {"proxy-a": 12, "proxy-b": 3}, "a decision is a value of its own"


@pytest.mark.parametrize(
    ("type_", "threshold", "reached"),
    [
        (LimitType.REQUEST, 11, False),
        (LimitType.REQUEST, 10, True),
        (LimitType.REQUEST, 9, True),
        (LimitType.TOKEN, 501, False),
        (LimitType.TOKEN, 500, True),
    ],
)
def test_a_threshold_is_used_up_once_it_is_reached(type_: LimitType, threshold: int, reached: bool) -> None:
    decision = decisions.decide(TOTAL, (Threshold(type_, threshold),), {})

    assert decision.used_up == ((UsedUp(type=type_, threshold=threshold),) if reached else ())


def test_every_threshold_is_judged_by_itself() -> None:
    thresholds = (Threshold(LimitType.TOKEN, 400), Threshold(LimitType.REQUEST, 50), Threshold(LimitType.REQUEST, 5))

    assert decisions.decide(TOTAL, thresholds, {}).used_up == (
        UsedUp(type=LimitType.TOKEN, threshold=400),
        UsedUp(type=LimitType.REQUEST, threshold=5),
    )


@pytest.mark.parametrize(
    ("day", "midnight"),
    [(date(2024, 2, 29), datetime(2024, 3, 1, tzinfo=UTC)), (date(2024, 12, 31), datetime(2025, 1, 1, tzinfo=UTC))],
)
def test_a_day_resets_at_the_midnight_utc_that_ends_it(day: date, midnight: datetime) -> None:
    assert days.reset_at(day) == midnight


def test_marks_of_instances_that_were_not_heard_of_for_long_are_left_out() -> None:
    newest = datetime(2025, 3, 20, tzinfo=UTC)
    marks = [
        ("new", 3, newest),
        ("at the edge", 2, newest - timedelta(days=10)),
        ("gone", 9, newest - timedelta(days=10, microseconds=1)),
    ]

    assert decisions.heard(marks) == {"new": 3, "at the edge": 2}
    assert decisions.heard([]) == {}


def test_an_event_of_any_day_that_still_lasts_moved_its_mark_within_that_time() -> None:
    assert timedelta(days=ledger_days.AHEAD_DAYS + 2) <= decisions.HEARD_WITHIN
