"""Decisions over all totals and thresholds."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from domain.limit_tree import Threshold
from metering.core import decisions
from metering.core.sums import Counter, LimitTotal
from schemas.decisions import Decision
from schemas.limits import LimitType

COUNTS = st.integers(0, 2**53)
MANY_THRESHOLDS = st.lists(st.builds(Threshold, st.sampled_from(LimitType), st.integers(1, 2**53)))
TOTALS = st.builds(
    LimitTotal,
    st.builds(Counter, st.dates(max_value=date(9999, 12, 30)), st.just("group"), st.just("org/model")),
    COUNTS,
    COUNTS,
    st.integers(1, 2**40),
)
MARKS = st.dictionaries(st.text(max_size=5), st.integers(1, 2**60), max_size=3)


@given(TOTALS, MANY_THRESHOLDS, MARKS)
def test_used_up_are_exactly_the_thresholds_that_the_total_has_reached(
    total: LimitTotal, thresholds: list[Threshold], marks: dict[str, int]
) -> None:
    decision = decisions.decide(total, thresholds, marks)
    used_up = {(each.type, each.threshold) for each in decision.used_up}

    for threshold in thresholds:
        used = {LimitType.REQUEST: total.requests, LimitType.TOKEN: total.tokens}[threshold.type]
        assert ((threshold.type, threshold.value) in used_up) == (used >= threshold.value)
    assert used_up <= {(threshold.type, threshold.value) for threshold in thresholds}


@given(TOTALS, MANY_THRESHOLDS, MARKS, COUNTS, COUNTS)
def test_what_is_used_up_stays_so_while_totals_grow(
    total: LimitTotal, thresholds: list[Threshold], marks: dict[str, int], requests: int, tokens: int
) -> None:
    grown = LimitTotal(total.counter, total.requests + requests, total.tokens + tokens, total.version + 1)
    before, after = (decisions.decide(each, thresholds, marks) for each in (total, grown))

    assert {str(each) for each in before.used_up} <= {str(each) for each in after.used_up}


@given(TOTALS, MANY_THRESHOLDS, MARKS)
def test_a_decision_comes_back_whole_from_the_wire(
    total: LimitTotal, thresholds: list[Threshold], marks: dict[str, int]
) -> None:
    decision = decisions.decide(total, thresholds, marks)

    assert Decision.model_validate_json(decision.model_dump_json(by_alias=True)) == decision
    start = datetime.combine(total.counter.day, datetime.min.time(), UTC)
    assert decision.reset_at - start == timedelta(days=1)
