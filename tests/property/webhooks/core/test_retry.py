"""The bounds of a run, whatever the receiver does and however long each attempt takes (contract 5)."""

from dataclasses import dataclass, field
from enum import StrEnum

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.webhooks import kit
from webhooks.core import retry
from webhooks.core.absences import Absences
from webhooks.core.deliveries import Claim, Queue
from webhooks.core.retry import AttemptResult, Delivered, GiveUp, Policy, RetryAt, Turn

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
            outcome = AttemptResult(one.status, None if one.status else "gone", 0, one.retry_after)
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
    outcome = AttemptResult(one.status, None if one.status else "gone", 0, one.retry_after)
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


STEP_S, LEASE_S = 0.5, 30.0
"""How often a dispatcher that is there takes a turn, and how long it holds a claim."""


class Happening(StrEnum):
    """What may befall an attempt, beside what the receiver does."""

    NOTHING = "nothing"
    QUEUED = "queued"
    """Dispatchers are there, and their own bounds keep it waiting."""
    AWAY = "away"
    """Nobody takes a turn."""
    STOOD_STILL = "stood still"
    """Its dispatcher stands still while it is under way."""
    DIED = "died"
    """Its dispatcher dies while it is under way: its claim runs out, and another takes it over."""


@dataclass
class World:
    """One delivery and a dispatcher, by the clock of a story: knows absences, and nothing of how the rule sees them."""

    status: int | None
    now_s: float = 0.0
    planned_s: float = 0.0
    first_s: float | None = None
    number: int = 1
    was_lost: bool = False
    attendance: Absences = field(default_factory=lambda: Absences(POLICY.away_after_s))
    absences: list[tuple[float, float]] = field(default_factory=list)
    """Of the run: since its first attempt was claimed."""
    attempts: list[tuple[float, float, float]] = field(default_factory=list)
    """When each was planned, when it began, and how long it was given."""

    def live(self, happening: Happening, seconds: float, took: float) -> bool:
        """Play one attempt and what comes before it; say whether the run goes on."""
        self._turn_until(self.planned_s)
        if happening is Happening.QUEUED:
            self._turn_until(self.now_s + seconds)
        if happening is Happening.AWAY:
            self._be_away(seconds)
        self.attendance.note(["ws"], kit.after(self.now_s))
        turn = self._claimed()
        timeout_s = retry.attempt_timeout_s(turn, POLICY)
        if happening is Happening.DIED:
            self.absences.append((self.now_s, self.now_s + LEASE_S))
            self.attendance, self.was_lost = Absences(POLICY.away_after_s), True
            self._turn_until(self.now_s + LEASE_S)
            return True
        self.attempts.append((self.planned_s, self.now_s, timeout_s))
        self.now_s += took * timeout_s
        if happening is Happening.STOOD_STILL:
            self.now_s = self.attempts[-1][1] + timeout_s
            self._be_away(seconds)
        outcome = AttemptResult(self.status, None if self.status else "gone", 0)
        decision = retry.decide(outcome, turn, kit.after(self.now_s), POLICY, 0.0)
        if not isinstance(decision, RetryAt):
            return False
        self.planned_s, self.number, self.was_lost = (decision.when - kit.START).total_seconds(), self.number + 1, False
        return True

    def _turn_until(self, then_s: float) -> None:
        while self.now_s < then_s:
            self.attendance.note(["ws"], kit.after(self.now_s))
            self.now_s = min(then_s, self.now_s + STEP_S)

    def _be_away(self, seconds: float) -> None:
        if self.first_s is not None:
            self.absences.append((self.now_s, self.now_s + seconds))
        self.now_s += seconds

    def _claimed(self) -> Turn:
        self.first_s = self.now_s if self.first_s is None else self.first_s
        first, planned, now = kit.after(self.first_s), kit.after(self.planned_s), kit.after(self.now_s)
        ends = kit.after(self.now_s + LEASE_S)
        claim = Claim("id", "token", "ws", b"", Queue.RETRY, self.number, first, planned, now, ends, self.was_lost)
        return self.attendance.turn(claim, now)


stories = st.lists(st.tuples(st.sampled_from(Happening), st.floats(2, 60), st.floats(0, 1)), min_size=20, max_size=20)


@given(stories, st.sampled_from(RETRIED))
def test_whoever_is_away_costs_no_delivery_its_last_chance(
    story: list[tuple[Happening, float, float]], status: int | None
) -> None:
    world = World(status)
    goes_on = True
    for part in story:
        goes_on = goes_on and world.live(*part)
    assert not goes_on or len(world.attempts) < 16, "a run does not end"
    if not goes_on and world.absences:
        assert max(began_s for _, began_s, _ in world.attempts) >= world.absences[0][1] - 1e-5
    for planned_s, began_s, given_s in world.attempts:
        assert 0 < given_s <= POLICY.attempt_timeout_s
        if any(planned_s <= from_s and until_s <= began_s for from_s, until_s in world.absences):
            assert given_s == POLICY.attempt_timeout_s
        if not world.absences:
            bound_s = world.attempts[0][1] + POLICY.bound_s
            assert began_s + given_s <= max(bound_s + POLICY.shortest_attempt_s, began_s + 1) + 1e-5
            assert given_s >= min(1, bound_s - planned_s) - 1e-5
