"""Holding, probing and pacing, whatever becomes of the deliveries (contract 5)."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.webhooks import kit
from tests.unit.webhooks.kit import WELL
from webhooks.core import health, pace
from webhooks.core.health import Rule
from webhooks.core.pace import Pace
from webhooks.core.retry import Decision, Delivered, GiveUp, Leave, Release, RetryAt

ENDS = [Delivered(), GiveUp("gone"), GiveUp("gone"), GiveUp("bad", refused=True)]
decisions = st.sampled_from([*ENDS, RetryAt(kit.START), Release(), Leave()])


@given(st.lists(decisions, max_size=60), st.integers(1, 8))
def test_a_receiver_is_held_exactly_while_its_last_endings_were_all_dead(made: list[Decision], bound: int) -> None:
    rule = Rule(dead_before_hold=bound)
    known, in_row = WELL, 0
    for number, decision in enumerate(made):
        known = health.after(known, decision, kit.after(number), rule)
        if isinstance(decision, Delivered):
            in_row = 0
        in_row += decision == GiveUp("gone")
        assert known.dead_in_row == in_row
        assert (known.probe_at is not None) == (in_row >= bound)


@given(st.lists(decisions, max_size=60))
def test_a_success_redrives_exactly_where_something_was_lost_since_the_last(made: list[Decision]) -> None:
    rule = Rule()
    known, lost = WELL, False
    for number, decision in enumerate(made):
        before, known = known, health.after(known, decision, kit.after(number), rule)
        if isinstance(decision, Delivered):
            assert known.redrive_at == (kit.after(number) if lost else before.redrive_at)
            lost = False
        lost = lost or decision == GiveUp("gone")


@given(st.lists(st.floats(0, 0.7), max_size=80), st.integers(1, 5))
def test_no_second_holds_more_attempts_than_the_pace(gaps: list[float], per_s: int) -> None:
    paced, at_s, begun = Pace(per_s), 0.0, []
    for gap in gaps:
        at_s += gap
        if paced.left(["a"], at_s)["a"] > 0:
            paced.begin("a", at_s)
            begun.append(at_s)
        else:
            free_at_s = paced.free_at_s("a")
            assert free_at_s is not None
            assert free_at_s > at_s
    assert all(later >= early + 1 for early, later in zip(begun, begun[per_s:], strict=False))


@given(st.lists(st.integers(0, 20), max_size=10), st.floats(0.1, 1000), st.floats(-100, 100))
def test_however_a_redrive_is_cut_its_rate_holds(steps: list[int], per_s: float, busy_s: float) -> None:
    moments = []
    busy_until = kit.after(busy_s)
    for count in steps:
        some = pace.spread(kit.START, busy_until, count, per_s)
        moments += some
        busy_until = max([busy_until, *some])
    waits = [(later - early).total_seconds() for early, later in pairwise(moments)]
    assert all(wait_s >= 1 / per_s - 1e-5 for wait_s in waits)
    assert all(moment >= kit.START for moment in moments)
