"""Decisions over all totals and thresholds."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from domain.limit_tree import Threshold
from metering.core import decisions
from metering.core.decisions import Part
from metering.core.sums import Counter, LimitTotal
from schemas.decisions import Decision
from schemas.limits import LimitType

COUNTS = st.integers(0, 2**53)
MANY_THRESHOLDS = st.lists(st.builds(Threshold, st.sampled_from(LimitType), st.integers(1, 2**53)))
PARTS = st.integers(0, 2**52)
TOTALS = st.builds(
    lambda counter, requests, prompt, completion, version, cost: LimitTotal(
        counter, requests, prompt + completion, version, prompt, completion, cost
    ),
    st.builds(Counter, st.dates(max_value=date(9999, 12, 30)), st.just("group"), st.just("org/model")),
    COUNTS,
    PARTS,
    PARTS,
    st.integers(1, 2**40),
    st.integers(0, 2**62),
)


@given(TOTALS, MANY_THRESHOLDS)
def test_used_up_are_exactly_the_thresholds_that_the_total_has_reached(
    total: LimitTotal, thresholds: list[Threshold]
) -> None:
    used_up = {(each.type, each.threshold) for each in decisions.used_up(total, thresholds)}

    for threshold in thresholds:
        amounts: dict[LimitType, int | Fraction] = {
            LimitType.REQUEST: total.requests,
            LimitType.TOKEN: total.tokens,
            LimitType.INPUT_TOKEN: total.input_tokens,
            LimitType.OUTPUT_TOKEN: total.output_tokens,
            LimitType.COST: Fraction(total.cost, 1_000_000),
        }
        used = amounts[threshold.type]
        assert ((threshold.type, threshold.value) in used_up) == (used >= threshold.value)
    assert used_up <= {(threshold.type, threshold.value) for threshold in thresholds}


@given(TOTALS, MANY_THRESHOLDS, COUNTS, COUNTS)
def test_what_is_used_up_stays_so_while_totals_grow(
    total: LimitTotal, thresholds: list[Threshold], requests: int, tokens: int
) -> None:
    grown = replace(
        total,
        requests=total.requests + requests,
        tokens=total.tokens + tokens,
        output_tokens=total.output_tokens + tokens,
        cost=total.cost + tokens,
        version=total.version + 1,
    )
    before, after = (decisions.used_up(each, thresholds) for each in (total, grown))

    assert {str(each) for each in before} <= {str(each) for each in after}


@given(TOTALS, MANY_THRESHOLDS)
def test_a_decision_comes_back_whole_from_the_wire(total: LimitTotal, thresholds: list[Threshold]) -> None:
    decision = decisions.decision(Part("lane", 3, total.version, total, decisions.used_up(total, thresholds)))

    assert Decision.model_validate_json(decision.model_dump_json(by_alias=True)) == decision
    start = datetime.combine(total.counter.day, datetime.min.time(), UTC)
    assert decision.reset_at - start == timedelta(days=1)
