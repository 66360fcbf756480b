"""Decides whether a request's day limits admit it: the proxy's sum of counting 6, per (group, slug, UTC day).

Never counts an event twice once it is settled, never misses one, and never reads a clock.

Rules:

- The sum = totals of the newest decision + rows spooled here that those totals do not hold yet + what is in flight.
- A row is in the totals when its sequence is at or below the decision's mark for its instance.
- A limit admits while the sum is below its threshold, and metering has not called that very threshold used up.
- A reservation charges every charged group or none, also groups without a limit: one may be set later in the day.
- A refusal rests on reservations where, without those in flight, every limit would admit.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from schemas.decisions import Decision
from schemas.limits import LimitType

_Row = tuple[int, int]
"""Sequence and tokens of one request."""


@dataclass(frozen=True, slots=True)
class DayLimit:
    """At most `threshold` of `type` in a UTC day, set by `source_group`, counted for `counting_group`."""

    type: LimitType
    threshold: int
    source_group: str
    counting_group: str


@dataclass(frozen=True, slots=True)
class DayRefusal:
    """The day is used up: nothing was taken."""

    limit: DayLimit
    """The first limit that is used up; where none is, the first that requests in flight hold."""
    rests_on_reservations: bool
    """Whether it is only held: it may admit as soon as one of them ends."""


class _Counter:
    """One (group, slug, day)."""

    __slots__ = (
        "counted",
        "decided_requests",
        "decided_tokens",
        "in_flight_requests",
        "in_flight_tokens",
        "pending",
        "requests",
        "tokens",
        "used_up",
        "version",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = 0
        """The whole sum, in flight included."""
        self.in_flight_requests = 0
        self.in_flight_tokens = 0
        self.version: int | None = None
        self.decided_requests = 0
        self.decided_tokens = 0
        self.counted: Mapping[str, int] = {}
        self.used_up: frozenset[tuple[LimitType, int]] = frozenset()
        self.pending: dict[str, deque[_Row]] = {}
        """By instance, sequences ascending."""

    def refuses(self, limit: DayLimit) -> bool:
        total = self.requests if limit.type is LimitType.REQUEST else self.tokens
        return total >= limit.threshold or (limit.type, limit.threshold) in self.used_up

    def is_held(self, limit: DayLimit) -> bool:
        """Whether a limit that refuses would admit without what is in flight."""
        in_flight = self.in_flight_requests if limit.type is LimitType.REQUEST else self.in_flight_tokens
        total = self.requests if limit.type is LimitType.REQUEST else self.tokens
        return total - in_flight < limit.threshold and (limit.type, limit.threshold) not in self.used_up

    def begin(self, tokens: int) -> None:
        """Add a request in flight and its estimate."""
        self.in_flight_requests += 1
        self.in_flight_tokens += tokens
        self.add(1, tokens)

    def end(self, tokens: int) -> None:
        """Take a request that ended out again, with its estimate."""
        self.in_flight_requests -= 1
        self.in_flight_tokens -= tokens
        self.add(-1, -tokens)

    def add(self, requests: int, tokens: int) -> None:
        self.requests += requests
        self.tokens += tokens

    def await_count(self, instance: str, row: _Row) -> bool:
        """Note a spooled row; False where the sum holds it already."""
        if self.counted.get(instance, 0) >= row[0]:
            return False
        rows = self.pending.get(instance)
        if rows is None:
            rows = self.pending[instance] = deque()
        place = len(rows)
        while place and rows[place - 1][0] >= row[0]:  # rows come in order but for a rare few
            if rows[place - 1][0] == row[0]:
                return False
            place -= 1
        rows.insert(place, row)
        return True

    def take_decision(self, decision: Decision) -> None:
        if self.version is not None and decision.version < self.version:
            return
        if decision.version == self.version:  # the same totals, but duplicates may have moved the marks since
            marks = decision.counted
            self.counted = marks | {name: max(mark, marks.get(name, 0)) for name, mark in self.counted.items()}
        else:
            self.add(decision.requests - self.decided_requests, decision.tokens - self.decided_tokens)
            self.version = decision.version
            self.decided_requests = decision.requests
            self.decided_tokens = decision.tokens
            self.counted = decision.counted
            self.used_up = frozenset((threshold.type, threshold.threshold) for threshold in decision.used_up)
        for instance, rows in list(self.pending.items()):
            mark = self.counted.get(instance, 0)
            while rows and rows[0][0] <= mark:
                self.add(-1, -rows.popleft()[1])
            if not rows:
                del self.pending[instance]


@dataclass(slots=True, eq=False)
class DayReservation:
    """One request and its estimated tokens. It ends once, by `settle` or `release`; what comes later is ignored."""

    estimate: int
    counters: tuple[_Counter, ...]
    ended: bool = False


class DayCounters:
    """All day counters of one proxy, whose own spool is `instance`."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        self._days: dict[date, dict[tuple[str, str], _Counter]] = {}
        self._oldest = date.min

    def __len__(self) -> int:
        return sum(len(counters) for counters in self._days.values())

    def reserve(
        self, day: date, slug: str, charged_groups: tuple[str, ...], limits: Sequence[DayLimit], tokens: int
    ) -> DayReservation | DayRefusal:
        """Add one request and `tokens` (estimated, not negative) to every charged group, or nothing to any."""
        for limit in limits:
            if self._counter(limit.counting_group, slug, day).refuses(limit):
                return self._refuse(day, slug, limits)
        counters = tuple([self._counter(group, slug, day) for group in charged_groups])
        for counter in counters:
            counter.begin(tokens)
        return DayReservation(tokens, counters)

    def settle(self, reservation: DayReservation, sequence: int, tokens: int) -> None:
        """Replace the estimate by what was used, spooled here as `sequence`.

        Where a decision that holds it came first, the request is in the sum twice until this call.
        """
        if reservation.ended:
            return
        reservation.ended = True
        row = (sequence, tokens)
        for counter in reservation.counters:
            counter.end(reservation.estimate)
            if counter.await_count(self._instance, row):
                counter.add(1, tokens)

    def release(self, reservation: DayReservation) -> None:
        """Give everything back: a rate limit refused, or the upstream did not answer with 2xx."""
        if reservation.ended:
            return
        reservation.ended = True
        for counter in reservation.counters:
            counter.end(reservation.estimate)

    def restore(  # noqa: PLR0917 - a spool row's columns, in their order
        self, group_ids: Sequence[str], slug: str, day: date, instance: str, sequence: int, tokens: int
    ) -> None:
        """Count a row that a spool still holds at start, `group_ids` its charged groups. Twice is once."""
        if day < self._oldest:
            return
        for group in group_ids:
            counter = self._counter(group, slug, day)
            if counter.await_count(instance, (sequence, tokens)):
                counter.add(1, tokens)

    def take_decision(self, decision: Decision) -> None:
        """Take metering's newest word on one counter; an older one is ignored."""
        if decision.day >= self._oldest:
            self._counter(decision.group_id, decision.model_slug, decision.day).take_decision(decision)

    def is_counted(self, charged_groups: Sequence[str], slug: str, day: date, instance: str, sequence: int) -> bool:
        """Say whether decisions count a row for every one of its charged groups, so that the sum needs it no more."""
        counters = self._days.get(day, {})
        return all(
            counter is not None and counter.counted.get(instance, 0) >= sequence
            for counter in [counters.get((group, slug)) for group in charged_groups]
        )

    def oldest_awaited(self, day: date) -> dict[str, int]:
        """Return, by instance, the lowest sequence of `day` that some decision still has to count."""
        oldest: dict[str, int] = {}
        for counter in self._days.get(day, {}).values():
            for instance, rows in counter.pending.items():
                oldest[instance] = min(rows[0][0], oldest.get(instance, rows[0][0]))
        return oldest

    def forget(self, before: date) -> None:
        """Drop all days before `before`, which no later reservation may name. What is in flight ends harmlessly."""
        self._oldest = max(self._oldest, before)
        for day in [day for day in self._days if day < before]:
            del self._days[day]

    def total(self, group: str, slug: str, day: date) -> tuple[int, int]:
        """Return the sum as (requests, tokens)."""
        counter = self._days.get(day, {}).get((group, slug))
        return (counter.requests, counter.tokens) if counter else (0, 0)

    def _refuse(self, day: date, slug: str, limits: Sequence[DayLimit]) -> DayRefusal:
        counters = [(limit, self._counter(limit.counting_group, slug, day)) for limit in limits]
        refusing = [(limit, counter.is_held(limit)) for limit, counter in counters if counter.refuses(limit)]
        limit, is_held = min(refusing, key=lambda found: found[1])
        return DayRefusal(limit, is_held)

    def _counter(self, group: str, slug: str, day: date) -> _Counter:
        counters = self._days.get(day)
        if counters is None:
            counters = self._days[day] = {}
        counter = counters.get((group, slug))
        if counter is None:
            counter = counters[group, slug] = _Counter()
        return counter
