"""Decisions on totals below, at and above their thresholds."""

from datetime import UTC, date, datetime

import pytest

from domain import days
from domain.limit_tree import Threshold
from metering.core import decisions
from metering.core.decisions import Part
from metering.core.sums import Counter, LimitTotal
from schemas.decisions import UsedUp
from schemas.limits import LimitType

TOTAL = LimitTotal(Counter(date(2024, 2, 29), "group-a", "org/model"), 10, 500, 7, 300, 200)


def test_a_decision_says_a_lanes_part_and_how_far_the_lane_is_counted() -> None:
    decision = decisions.decision(Part("usage.events.v1/3", 3, 41, TOTAL, (UsedUp(type=LimitType.TOKEN, threshold=5),)))

    assert (decision.group_id, decision.model_slug, decision.period) == ("group-a", "org/model", "2024-02-29")
    assert (decision.requests, decision.tokens, decision.version) == (10, 500, 7)
    assert (decision.input_tokens, decision.output_tokens) == (300, 200)
    assert (decision.lane, decision.at) == (3, 41)
    assert decision.used_up == (UsedUp(type=LimitType.TOKEN, threshold=5),)


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
    assert decisions.used_up(TOTAL, (Threshold(type_, threshold),)) == (
        (UsedUp(type=type_, threshold=threshold),) if reached else ()
    )


def test_every_threshold_is_judged_by_itself() -> None:
    thresholds = (Threshold(LimitType.TOKEN, 400), Threshold(LimitType.REQUEST, 50), Threshold(LimitType.REQUEST, 5))

    assert decisions.used_up(TOTAL, thresholds) == (
        UsedUp(type=LimitType.TOKEN, threshold=400),
        UsedUp(type=LimitType.REQUEST, threshold=5),
    )


@pytest.mark.parametrize(
    ("day", "midnight"),
    [(date(2024, 2, 29), datetime(2024, 3, 1, tzinfo=UTC)), (date(2024, 12, 31), datetime(2025, 1, 1, tzinfo=UTC))],
)
def test_a_day_resets_at_the_midnight_utc_that_ends_it(day: date, midnight: datetime) -> None:
    assert days.reset_at(day) == midnight
