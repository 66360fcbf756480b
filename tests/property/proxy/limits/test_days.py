"""The proxy's sum of counting 6 under any interleaving of reservations, settlements, decisions and restarts.

The model is the embedded world in small: a gapless spool per instance, each a lane whose offsets are its sequences;
metering that counts each in order and tells versioned parts, and a channel that delays, reorders, repeats and loses
them. What Kafka adds is in `tests/property/test_positions.py`.
"""

from dataclasses import dataclass, replace
from datetime import date

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.limits.counters import LanePart, SpooledRow
from proxy.limits.days import DayCounters, DayLimit, DayRefusal
from proxy.limits.reservations import DayReservation
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


def output_of(tokens: int) -> int:
    """Return what of a request's tokens is its answer's."""
    return tokens * 7 % 5 * tokens // 5


class Interleavings(RuleBasedStateMachine):
    """Rules are what may happen next; the invariant is the sum."""

    @initialize(
        requests=st.integers(1, 12),
        tokens=st.lists(st.integers(1, 400), min_size=3, max_size=3),
        old=st.lists(st.integers(0, 50), max_size=5),
    )
    def start(self, requests: int, tokens: list[int], old: list[int]) -> None:
        types = (LimitType.TOKEN, LimitType.INPUT_TOKEN, LimitType.OUTPUT_TOKEN)
        self.limits = (
            DayLimit(LimitType.REQUEST, requests, GROUP, GROUP),
            *(DayLimit(type_, threshold, GROUP, GROUP) for type_, threshold in zip(types, tokens, strict=True)),
        )
        self.spools: dict[str, list[int]] = {ME: [], OLD: old, PEER: []}  # tokens of sequence 1, 2, ...
        self.marks = {ME: 0, OLD: 0, PEER: 0}
        self.told: list[tuple[str, LanePart]] = []
        self.newest: dict[str, LanePart] = {}  # the newest that arrived here, by lane
        self.flying: list[Flying] = []
        self.days = DayCounters(ME, ME)
        self._restore()

    def _restore(self) -> None:
        for instance in (OLD, ME):
            for sequence, tokens in enumerate(self.spools[instance], start=1):
                row = SpooledRow(sequence, tokens, sequence, output_of(tokens))
                self.days.restore((GROUP,), SLUG, DAY, row, lane=instance, instance=instance)

    def _sum(self, instance: str, up_to: int) -> tuple[int, int, int]:
        counted = self.spools[instance][:up_to]
        return up_to, sum(counted), sum(map(output_of, counted))

    @rule(estimate=st.integers(0, 60), share=st.floats(0, 1))
    def reserve(self, estimate: int, share: float) -> None:
        events_here = [*self.spools[ME], *self.spools[OLD]]
        spooled = sum(1 for f in self.flying if f.sequence is not None)
        admitted = len(events_here) + len(self.flying) - spooled
        reserved = sum(events_here) + sum(f.used for f in self.flying if f.sequence is None)
        sums, used = self._model(in_flight=True), self._model(in_flight=False)
        full = [limit for limit, one in zip(self.limits, sums, strict=True) if one >= limit.threshold]
        outcome = self.days.reserve(DAY, SLUG, (GROUP,), self.limits, estimate, output_of(estimate))
        assert isinstance(outcome, DayRefusal) is bool(full)
        if isinstance(outcome, DayRefusal):
            assert outcome.limit in full
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
        self.days.settle(done.reservation, done.sequence, done.used, output_of(done.used))

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
        instance = data.draw(st.sampled_from([ME, OLD, PEER]))
        mark = self.marks[instance] = data.draw(st.integers(self.marks[instance], len(self.spools[instance])))
        self.told.append((instance, LanePart(len(self.told) + 1, mark + 1, *self._sum(instance, mark))))

    @precondition(lambda self: self.told)
    @rule(data=st.data())
    def a_part_arrives(self, data: st.DataObject) -> None:
        self._hear(*data.draw(st.sampled_from(self.told[-4:])))

    def _hear(self, lane: str, part: LanePart) -> None:
        self.days.take_part(GROUP, SLUG, DAY, lane, part)
        self.newest[lane] = max(part, self.newest.get(lane, part))

    @rule(parts_first=st.booleans())
    def kill_and_restart(self, parts_first: bool) -> None:
        """What was in flight and unspooled is gone; a compacted topic still gives each lane's newest part."""
        self.days, self.flying, self.newest = DayCounters(ME, ME), [], {}
        if not parts_first:
            self._restore()
        for lane, part in dict(self.told).items():
            self._hear(lane, part)
        if parts_first:
            self._restore()

    def _model(self, *, in_flight: bool) -> tuple[int, int, int, int]:
        """Return the sums of all requests, tokens, input and output tokens, added up event by event."""
        requests = sum(part.requests for part in self.newest.values())
        tokens = sum(part.tokens for part in self.newest.values())
        output = sum(part.output_tokens for part in self.newest.values())
        unsettled = {f.sequence for f in self.flying}
        for instance in (ME, OLD):
            part = self.newest.get(instance)
            for sequence, used in enumerate(self.spools[instance], start=1):
                is_counted = part is not None and sequence < part.at
                if not is_counted and not (instance == ME and sequence in unsettled):
                    requests, tokens, output = requests + 1, tokens + used, output + output_of(used)
        if in_flight:
            requests += len(self.flying)
            tokens += sum(f.reservation.estimate for f in self.flying)
            output += sum(output_of(f.reservation.estimate) for f in self.flying)
        return requests, tokens, tokens - output, output

    @invariant()
    def the_sum_holds_each_event_once(self) -> None:
        assert self.days.total(GROUP, SLUG, DAY) == self._model(in_flight=True)[:2]


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=150, stateful_step_count=40)
