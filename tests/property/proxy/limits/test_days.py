"""The proxy's sum of counting 6 under any interleaving of reservations, settlements, decisions and restarts.

The model is the whole world in small: a gapless spool per instance, metering that counts each spool in order and
publishes versioned decisions, and a channel that delays, reorders, repeats and loses them.
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.limits.days import DayCounters, DayLimit, DayRefusal, DayReservation
from schemas.decisions import Decision
from schemas.limits import LimitType

SLUG = "lab/model"
DAY = date(2025, 3, 1)
GROUP = "g"
ME, OLD, PEER = "me", "old", "peer"


@dataclass(frozen=True)
class Flying:
    """A request in flight here; `sequence` is set once its event is in the spool, which is before it settles."""

    reservation: DayReservation
    used: int
    sequence: int | None = None


class Interleavings(RuleBasedStateMachine):
    """Rules are what may happen next; the invariant is the sum."""

    @initialize(requests=st.integers(1, 12), tokens=st.integers(1, 400), old=st.lists(st.integers(0, 50), max_size=5))
    def start(self, requests: int, tokens: int, old: list[int]) -> None:
        self.limits = (
            DayLimit(LimitType.REQUEST, requests, GROUP, GROUP),
            DayLimit(LimitType.TOKEN, tokens, GROUP, GROUP),
        )
        self.spools: dict[str, list[int]] = {ME: [], OLD: old, PEER: []}  # tokens of sequence 1, 2, ...
        self.marks = {ME: 0, OLD: 0, PEER: 0}
        self.decisions: list[Decision] = []
        self.newest: Decision | None = None  # the newest that arrived here
        self.flying: list[Flying] = []
        self.days = DayCounters(ME)
        self._restore()

    def _restore(self) -> None:
        for instance in (OLD, ME):
            for sequence, tokens in enumerate(self.spools[instance], start=1):
                self.days.restore((GROUP,), SLUG, DAY, instance, sequence, tokens)

    def _sum(self, instance: str, up_to: int) -> tuple[int, int]:
        return up_to, sum(self.spools[instance][:up_to])

    @rule(estimate=st.integers(0, 60), share=st.floats(0, 1))
    def reserve(self, estimate: int, share: float) -> None:
        events_here = [*self.spools[ME], *self.spools[OLD]]
        spooled = sum(1 for f in self.flying if f.sequence is not None)
        admitted = len(events_here) + len(self.flying) - spooled
        reserved = sum(events_here) + sum(f.used for f in self.flying if f.sequence is None)
        outcome = self.days.reserve(DAY, SLUG, (GROUP,), self.limits, estimate)
        if isinstance(outcome, DayRefusal):
            requests, tokens = self.days.total(GROUP, SLUG, DAY)
            assert outcome.limit in self.limits
            assert requests >= self.limits[0].threshold or tokens >= self.limits[1].threshold
            used = (requests - len(self.flying), tokens - sum(f.reservation.estimate for f in self.flying))
            is_used_up = any(sum_ >= limit.threshold for sum_, limit in zip(used, self.limits, strict=True))
            assert outcome.rests_on_reservations is not is_used_up
        else:
            assert admitted < self.limits[0].threshold  # what this proxy admitted alone never passes it
            assert reserved < self.limits[1].threshold  # so one request at most overshoots
            self.flying.append(Flying(outcome, round(estimate * share)))

    @precondition(lambda self: any(f.sequence is None for f in self.flying))
    @rule(data=st.data())
    def spool(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from([i for i, f in enumerate(self.flying) if f.sequence is None]))
        self.spools[ME].append(self.flying[index].used)
        self.flying[index] = replace(self.flying[index], sequence=len(self.spools[ME]))

    @precondition(lambda self: any(f.sequence is not None for f in self.flying))
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        done = data.draw(st.sampled_from([f for f in self.flying if f.sequence is not None]))
        self.flying.remove(done)
        assert done.sequence is not None
        self.days.settle(done.reservation, done.sequence, done.used)

    @precondition(lambda self: any(f.sequence is None for f in self.flying))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        failed = data.draw(st.sampled_from([f for f in self.flying if f.sequence is None]))
        self.flying.remove(failed)
        self.days.release(failed.reservation)

    @rule(tokens=st.integers(0, 50))
    def peer_uses(self, tokens: int) -> None:
        self.spools[PEER].append(tokens)

    @rule(data=st.data())
    def metering_counts(self, data: st.DataObject) -> None:
        for instance, events in self.spools.items():
            self.marks[instance] = data.draw(st.integers(self.marks[instance], len(events)))
        sums = [self._sum(instance, mark) for instance, mark in self.marks.items()]
        self.decisions.append(
            Decision(
                group_id=GROUP,
                model_slug=SLUG,
                day=DAY,
                requests=sum(requests for requests, _ in sums),
                tokens=sum(tokens for _, tokens in sums),
                counted={instance: mark for instance, mark in self.marks.items() if mark},
                reset_at=datetime(2025, 3, 2, tzinfo=UTC),
                version=len(self.decisions) + 1,
            )
        )

    @precondition(lambda self: self.decisions)
    @rule(data=st.data())
    def a_decision_arrives(self, data: st.DataObject) -> None:
        decision = data.draw(st.sampled_from(self.decisions[-4:]))
        self.days.take_decision(decision)
        if self.newest is None or decision.version > self.newest.version:
            self.newest = decision

    @rule(decision_first=st.booleans())
    def kill_and_restart(self, decision_first: bool) -> None:
        """What was in flight and unspooled is gone; a compacted topic still gives the newest decision."""
        self.days, self.flying = DayCounters(ME), []
        kept = self.decisions[-1] if self.decisions else None
        if not decision_first:
            self._restore()
        if kept is not None:
            self.days.take_decision(kept)
            self.newest = kept
        if decision_first:
            self._restore()

    @invariant()
    def the_sum_holds_each_event_once(self) -> None:
        counted = self.newest.counted if self.newest else {}
        requests, tokens = (self.newest.requests, self.newest.tokens) if self.newest else (0, 0)
        unsettled = {f.sequence for f in self.flying}
        for instance in (ME, OLD):
            for sequence, used in enumerate(self.spools[instance], start=1):
                if sequence > counted.get(instance, 0) and not (instance == ME and sequence in unsettled):
                    requests, tokens = requests + 1, tokens + used
        requests += len(self.flying)
        tokens += sum(f.reservation.estimate for f in self.flying)
        assert self.days.total(GROUP, SLUG, DAY) == (requests, tokens)


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=40)
