"""The bounds of a run, whatever the receiver does and however long each attempt takes (spec 5)."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.webhooks import kit
from webhooks.core import retry
from webhooks.core.retry import Delivered, GiveUp, Outcome, Policy, RetryAt, Turn

POLICY = Policy()
RETRIED = [None, 500, 503, 408, 429]


@dataclass(frozen=True)
class Try:
    """How one attempt goes."""

    status: int | None
    took: float
    """Share of its timeout."""
    retry_after: str | None
    jitter: float
    late_s: float
    """How much later than planned it begins."""


tries = st.builds(
    Try,
    status=st.sampled_from([*RETRIED, 200, 301, 404]),
    took=st.floats(0, 1),
    retry_after=st.none() | st.integers(0, 20).map(str) | st.text(max_size=5),
    jitter=st.floats(0, 1),
    late_s=st.floats(0, 0.9),
)


@dataclass
class Run:
    """Plays one run of a delivery and keeps what the receiver would see."""

    began: list[float] = field(default_factory=list)
    timeouts: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    end: Delivered | GiveUp | None = None

    def play(self, plan: list[Try]) -> "Run":
        planned_s = 0.0
        for number, one in enumerate(plan, start=1):
            began_s = planned_s + (one.late_s if number > 1 else 0.0)
            turn = Turn(number, kit.START, kit.after(planned_s), kit.after(began_s))
            timeout_s = retry.attempt_timeout_s(turn, POLICY)
            ended_s = began_s + one.took * timeout_s
            self.began.append(began_s)
            self.timeouts.append(timeout_s)
            self.ended.append(ended_s)
            outcome = Outcome(one.status, None if one.status else "gone", 0, one.retry_after)
            decision = retry.decide(outcome, turn, kit.after(ended_s), POLICY, one.jitter)
            if not isinstance(decision, RetryAt):
                assert isinstance(decision, Delivered | GiveUp)
                self.end = decision
                return self
            planned_s = (decision.when - kit.START).total_seconds()
        return self


@given(st.lists(tries, min_size=16, max_size=16))
def test_a_run_ends_within_its_bound(plan: list[Try]) -> None:
    run = Run().play(plan)
    assert run.end is not None
    assert all(began_s < POLICY.bound_s + 0.9 for began_s in run.began)
    assert all(0 < timeout_s <= POLICY.attempt_timeout_s for timeout_s in run.timeouts)
    assert all(ended_s <= POLICY.bound_s + 0.9 + POLICY.shortest_attempt_s for ended_s in run.ended)


@given(st.lists(tries.map(lambda one: Try(one.status, one.took, one.retry_after, one.jitter, 0.0)), min_size=16))
def test_an_attempt_in_time_ends_in_time(plan: list[Try]) -> None:
    run = Run().play(plan)
    assert all(began_s < POLICY.bound_s for began_s in run.began)
    assert all(ended_s <= POLICY.bound_s + POLICY.shortest_attempt_s for ended_s in run.ended)


@given(st.lists(tries.filter(lambda one: one.status in RETRIED), min_size=16, max_size=16))
def test_waits_lie_between_the_doubling_and_a_tenth_more_or_what_retry_after_asks(plan: list[Try]) -> None:
    run = Run().play(plan)
    assert isinstance(run.end, GiveUp)
    for number in range(1, len(run.began)):
        wait_s = run.began[number] - run.ended[number - 1] - plan[number].late_s
        doubled = min(2.0 ** (number - 1), 5.0)
        asked_s = retry.retry_after_s(plan[number - 1].retry_after, kit.START) or 0.0
        assert wait_s >= max(doubled, asked_s) - 1e-5
        assert wait_s <= max(doubled * 1.1, asked_s) + 1e-5


@given(tries, st.integers(1, 100), st.floats(0, 15))
def test_the_last_word_is_a_success_or_a_reason(one: Try, number: int, at_s: float) -> None:
    turn = Turn(number, kit.START, kit.after(at_s), kit.after(at_s))
    outcome = Outcome(one.status, None if one.status else "gone", 0, one.retry_after)
    decision = retry.decide(outcome, turn, kit.after(at_s), POLICY, one.jitter)
    match decision:
        case Delivered():
            assert one.status == 200
        case GiveUp(reason):
            assert reason
            assert one.status != 200
        case RetryAt(when):
            assert one.status in RETRIED
            assert kit.after(at_s) < when < kit.after(POLICY.bound_s)


@given(st.text() | st.integers().map(str))
def test_any_retry_after_header_can_be_read(header: str) -> None:
    wait_s = retry.retry_after_s(header, kit.START)
    assert wait_s is None or 0 <= wait_s < 10**12


@given(
    st.lists(st.tuples(st.floats(0, 0.9) | st.floats(2, 600), st.floats(0, 1) | st.floats(2, 100)), min_size=20),
    st.sampled_from(RETRIED),
)
def test_whoever_is_away_costs_no_delivery_its_last_chance(plan: list[tuple[float, float]], status: int | None) -> None:
    """Each pair: how late an attempt begins, and how many of its timeouts it takes (above 1: nobody was there)."""
    outcome = Outcome(status, None if status else "gone", 0)
    planned_s, attempts, was_away = 0.0, 0, False
    for number, (late_s, took) in enumerate(plan, start=1):
        attempts = number
        began_s = planned_s + late_s
        turn = Turn(number, kit.START, kit.after(planned_s), kit.after(began_s))
        ended_s = began_s + took * retry.attempt_timeout_s(turn, POLICY)
        decision = retry.decide(outcome, turn, kit.after(ended_s), POLICY, 0.0)
        if isinstance(decision, GiveUp):
            # Away during this attempt and nothing after it: it must itself have been the one more.
            if ended_s > POLICY.bound_s + POLICY.away_after_s:
                assert turn.is_one_more(POLICY)
            return
        assert isinstance(decision, RetryAt)
        was_away = ended_s > POLICY.bound_s + POLICY.away_after_s
        planned_s = (decision.when - kit.START).total_seconds()
        assert planned_s < POLICY.bound_s or was_away
    assert attempts < 16, "a run does not end"
