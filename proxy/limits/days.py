"""Decides whether a request's day limits admit it: the proxy's sum of counting 6, per (group, slug, UTC day).

Never counts an event twice once it is settled and acknowledged, and never misses one. It reads no clock.

Rules:

- The sum = over lanes (the part last told + rows spooled here that are not counted in it) + what is in flight.
- A row is counted when its offset is known and below the part's `at` or the lane's `whole`, whichever is higher.
- A limit admits while the sum is below its threshold.
- A month is summed like a day, of its own parts: those of its days that are over are not known here. It is kept from
  when a limit asks for it or metering tells of it; then its days hand it what they hold. A day that is over is kept
  while rows of it are not counted: a month that is asked for later needs them.
- A reservation charges every charged group or none, also groups without a limit: one may be set later in the day.
- A refusal rests on reservations where, without those in flight, every limit would admit.
- Beside the sum stands what other proxies told near a limit; a refusal that needs it rests on reservations.
- While a metering of the version before runs, its words hold (`counted`, by sequence) until each lane has told `whole`.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from domain.costs import UnitCost
from domain.days import month_of
from proxy.limits.counters import NOWHERE, DayCounter, Lane, LanePart, Rows, SpooledRow, SpoolLane, insert
from proxy.limits.in_flight import CounterKey
from proxy.limits.near import NEAR, NearLimit, NearLimits
from proxy.limits.others import OtherProxies
from proxy.limits.periods import CounterPeriods
from proxy.limits.reservations import DayReservation
from schemas.decisions import DecisionBySequence
from schemas.limits import ANY_SLUG, LimitType, UsageLimitUnit

LaneOf = Callable[[str, str, int], Lane]
"""Says which lane a row lies in, by the last of its charged groups, its spool's instance and its sequence."""
_MOST_CHARGED = 10_000  # routes whose counters are remembered


@dataclass(frozen=True, slots=True)
class DayLimit:
    """At most `threshold` of `type` in a UTC day or month, set by `source_group`, counted for `counting_group`."""

    type: LimitType
    threshold: int
    source_group: str
    counting_group: str
    over_all: bool = False
    """Whether it counts all slugs of the group together."""
    unit: UsageLimitUnit = UsageLimitUnit.DAY

    def counted_slug(self, slug: str) -> str:
        """Return the slug that its counter bears, for a request of `slug`."""
        return ANY_SLUG if self.over_all else slug


@dataclass(frozen=True, slots=True)
class DayRefusal:
    """The day or the month is used up: nothing was taken."""

    limit: DayLimit
    """A month's limit that is used up, else the first day's; where none is, one that requests in flight hold."""
    rests_on_reservations: bool
    """Whether it is only held: it may admit as soon as one of them ends."""


class _Charged(NamedTuple):
    """What the requests of one route touch on one day."""

    groups: tuple[str, ...]
    slug: str
    limits: Sequence[DayLimit]
    counting: list[tuple[DayLimit, DayCounter, float]]
    """Each limit, its counter, and the sum from which other proxies are told what is in flight here."""
    counters: tuple[DayCounter, ...]
    """Of each charged group."""


class DayCounters:
    """All day counters of one proxy, whose own spool is `instance`.

    Embedded, the only lane is the spool itself. Apart, `use_lanes` names them.
    """

    def __init__(self, instance: str, lane: Lane = "spool") -> None:
        """`lane` is that of the own spool, embedded; see `use_lanes`."""
        self._instance = instance
        self._own_lane: Lane | None = lane
        self._lane_of: LaneOf = lambda *_: lane
        self._charged: dict[int, _Charged] = {}
        """What was charged last, of one day, by the identity of the groups, which an entry keeps alive."""
        self._charged_day = date.min
        self._wholes: dict[Lane, int] = {}
        self._periods = CounterPeriods(self._wholes)
        self._untold: set[Lane] = set()
        """Lanes that have not told `whole`: until they have, what the version before tells by sequence is taken."""
        self._awaited: dict[SpoolLane, Rows] = {}
        """Rows that `whole` has not passed, by lane and spool."""
        self._unplaced: dict[SpoolLane, dict[int, SpooledRow]] = {}
        """Those of them whose offset is not known, by sequence."""
        self._told_from = math.inf
        """From which share of a threshold on other proxies are told; infinite where there are none."""
        self._near = NearLimits()
        self.others = OtherProxies(self._periods, instance)

    def __len__(self) -> int:
        return len(self._periods)

    def use_lanes(self, lanes: Iterable[Lane], lane_of: LaneOf) -> None:
        """Say which lanes the usage topic has. To be called before the first row and the first part.

        Until each of them has told `whole`, metering may be of the version before, which tells none.
        """
        self._own_lane = None
        self._lane_of = lane_of
        self._untold = set(lanes)

    def reserve(  # noqa: PLR0917 - the day, the route's parts, and both parts of an estimate
        self,
        day: date,
        slug: str,
        charged_groups: tuple[str, ...],
        limits: Sequence[DayLimit],
        tokens: int,
        output_tokens: int = 0,
        unit_cost: UnitCost | None = None,
    ) -> DayReservation | DayRefusal:
        """Add one request and `tokens` (estimated, not negative) to every charged group, or nothing to any.

        `output_tokens` are what of `tokens` is for the answer. By `unit_cost` their cost is reserved too.
        """
        charged = self._charged.get(id(charged_groups)) if day == self._charged_day else None
        if charged is None or charged.limits is not limits or charged.slug != slug:
            charged = self._look_up(day, slug, charged_groups, limits)
        for limit, counter, near in charged.counting:
            used = counter.used(limit.type)
            if used >= near:
                self._note(limit, slug, day)  # also where nothing is admitted here: others may admit
                if used >= limit.threshold:
                    return self._refuse(day, slug, limits)
        cost = 0 if unit_cost is None else unit_cost.of(1, tokens - output_tokens, 0, output_tokens)
        for counter in charged.counters:
            counter.begin(tokens, output_tokens, cost)
        return DayReservation(tokens, output_tokens, unit_cost, cost, charged_groups[-1], charged.counters)

    def settle(
        self, reservation: DayReservation, sequence: int, tokens: int, output_tokens: int = 0, cost: int = 0
    ) -> None:
        """Replace the estimate by what was used, spooled here as `sequence`; no offset of it was told yet."""
        if reservation.ended:
            return
        self.release(reservation)
        lane = self._lane_of(reservation.root, self._instance, sequence)
        offset = sequence if lane == self._own_lane else None  # embedded, a row's sequence is its offset
        row = SpooledRow(sequence, tokens, offset, output_tokens, cost)
        self._await((lane, self._instance), row, reservation.counters)

    def release(self, reservation: DayReservation) -> None:
        """Give everything back: a rate limit refused, or the upstream did not answer with 2xx."""
        if reservation.ended:
            return
        reservation.ended = True
        for counter in reservation.counters:
            counter.end(reservation.estimate, reservation.output, reservation.cost)

    def restore(
        self, group_ids: Sequence[str], slug: str, day: date, row: SpooledRow, *, lane: Lane, instance: str
    ) -> None:
        """Count a row that a spool still holds at start, `group_ids` its charged groups. Twice is once.

        Its offset is where its lane has it at the highest; None: it will be sent (again).
        """
        if day >= self._periods.oldest:
            counters = tuple([self._periods.counter(group, slug, day) for group in group_ids])
            self._await((lane, instance), row, counters)

    def acknowledge(self, lane: Lane, instance: str, placed: Iterable[tuple[int, int]]) -> None:
        """Take the offsets that the broker gave to rows of a spool: (sequence, offset), ascending."""
        unplaced = self._unplaced.get((lane, instance))
        if unplaced is None:
            return
        found = [(unplaced.pop(sequence, None), offset) for sequence, offset in placed]
        if not unplaced:
            del self._unplaced[lane, instance]
        touched: dict[DayCounter, None] = {}
        for row, offset in found:
            if row is not None:
                row.offset = offset
                touched |= dict.fromkeys(row.counters)
        whole = self._wholes.get(lane, NOWHERE)
        for counter in touched:
            counter.drop(lane, whole)
        self._pass(lane, whole)

    def take_part(self, group: str, slug: str, day: date, lane: Lane, part: LanePart) -> None:
        """Take the newest part of a counter in a lane, as metering tells it; an older one is ignored."""
        if day >= self._periods.oldest:
            self._periods.counter(group, slug, day).take_part(lane, part, self._wholes.get(lane, NOWHERE))

    def take_month(self, group: str, slug: str, month: date, lane: Lane, part: LanePart) -> None:
        """Take the same on the counter's month, which its first day names."""
        if month >= month_of(self._periods.oldest):
            self._periods.month(group, slug, month).take_part(lane, part, self._wholes.get(lane, NOWHERE))

    def take_by_sequence(self, told: DecisionBySequence) -> None:
        """Take what a metering of the version before tells, unless every lane has told `whole`."""
        if self._untold and told.day >= self._periods.oldest:
            self._periods.counter(told.group_id, told.model_slug, told.day).take_by_sequence(told)

    def take_whole(self, lane: Lane, at: int) -> None:
        """Note that every change of a lane below `at` was heard here: a part that is told later lies above it."""
        if at <= self._wholes.get(lane, NOWHERE):
            return
        self._wholes[lane] = at
        if self._untold:
            self._untold.discard(lane)
            if not self._untold:
                for counter in self._periods:
                    counter.go_by_parts(self._wholes)
        self._pass(lane, at)

    def may_go(  # noqa: PLR0917 - a spool row's columns, in their order
        self, group_ids: Sequence[str], slug: str, day: date, instance: str, sequence: int, offset: int
    ) -> bool:
        """Say whether no sum needs a row any more, nor will after a restart; it is published at `offset` or below."""
        if offset < self._wholes.get(self._lane_of(group_ids[-1], instance, sequence), NOWHERE):
            return True
        if not self._untold:
            return False
        period = self._periods.of_day(day)
        counters = [period.find(group, slug) for group in group_ids]
        told = [None if counter is None else counter.by_sequence for counter in counters]
        return all(one is not None and one.counted.get(instance, 0) >= sequence for one in told)

    def oldest_awaited(self, day: date) -> dict[str, int]:
        """Return, by instance, the lowest sequence of `day` that no decision counts yet."""
        oldest: dict[str, int] = {}
        for counter in self._periods.of_day(day):
            for (_, instance), rows in counter.pending.items():
                oldest[instance] = min(rows[0].sequence, oldest.get(instance, rows[0].sequence))
        return oldest

    def tell_others_from(self, share: float) -> None:
        """Say from which share of a limit on (at most 1) other proxies are told what this one has in flight."""
        if share != self._told_from:
            self._told_from = share
            self._charged.clear()

    def forget(self, before: date) -> None:
        """Drop days and months before `before`, which no later reservation may name. What is in flight there ends well.

        A day of this month is kept while rows of it are not counted.
        """
        self._periods.forget(before)
        self._charged.clear()

    def total(self, group: str, slug: str, day: date) -> tuple[int, int]:
        """Return the sum as (requests, tokens)."""
        counter = self._periods.of_day(day).find(group, slug)
        return (counter.requests, counter.tokens) if counter else (0, 0)

    def used(self, limit: DayLimit, slug: str, day: date) -> int:
        """Return the sum that a limit is judged by, for calls of a slug."""
        return self._counted(limit, slug, day).used(limit.type)

    def near(self, today: date) -> dict[tuple[str, str, str, str], float]:
        """Return what share is used of the limits near their end, by group, slug, type and unit."""

        def used(limit: NearLimit, day: date) -> int:
            counter = self._periods.find(limit.group, limit.slug, day, limit.unit)
            return 0 if counter is None else counter.used(limit.type)

        return self._near.shares(today, used)

    def _await(self, place: SpoolLane, row: SpooledRow, counters: tuple[DayCounter, ...]) -> None:
        whole = self._wholes.get(place[0], NOWHERE)
        if row.is_below(whole):
            return
        rows = self._awaited.get(place)
        if rows is None:
            rows = self._awaited[place] = deque()
        if not insert(rows, row):
            return
        row.counters = counters
        if row.offset is None:
            self._unplaced.setdefault(place, {})[row.sequence] = row
        for counter in counters:
            counter.add_row(place, row, whole)

    def _pass(self, lane: Lane, whole: int) -> None:
        """Let go of the rows that a lane's `whole` has passed."""
        touched: dict[DayCounter, None] = {}
        for place in [place for place in self._awaited if place[0] == lane]:
            rows = self._awaited[place]
            while rows and rows[0].is_below(whole):
                touched |= dict.fromkeys(rows.popleft().counters)
            if not rows:
                del self._awaited[place]
        for counter in touched:
            counter.drop(lane, whole)

    def _note(self, limit: DayLimit, slug: str, day: date) -> None:
        counted = limit.counted_slug(slug)
        self._near.note(NearLimit(limit.counting_group, counted, limit.type, limit.unit), day, limit.threshold)
        if self._told_from <= 1:
            key = CounterKey(limit.counting_group, counted, day)
            self.others.note(key, limit.type, limit.unit, limit.threshold)

    def _refuse(self, day: date, slug: str, limits: Sequence[DayLimit]) -> DayRefusal:
        counters = [(limit, self._counted(limit, slug, day)) for limit in limits]
        refusing = [
            (limit, counter.is_held(limit.type, limit.threshold))
            for limit, counter in counters
            if counter.used(limit.type) >= limit.threshold
        ]
        limit, is_held = min(refusing, key=lambda found: (found[1], found[0].unit is UsageLimitUnit.DAY))
        return DayRefusal(limit, is_held)

    def _look_up(self, day: date, slug: str, charged_groups: tuple[str, ...], limits: Sequence[DayLimit]) -> _Charged:
        """Find what a route's requests touch, once for all of them until `forget` or another day."""
        if day != self._charged_day or len(self._charged) >= _MOST_CHARGED:
            self._charged.clear()
            self._charged_day = day
        noted_from = min(NEAR, self._told_from)
        found = self._charged[id(charged_groups)] = _Charged(
            charged_groups,
            slug,
            limits,
            [(limit, self._counted(limit, slug, day), limit.threshold * noted_from) for limit in limits],
            tuple([self._periods.counter(group, slug, day) for group in charged_groups]),
        )
        return found

    def _counted(self, limit: DayLimit, slug: str, day: date) -> DayCounter:
        find = self._periods.counter if limit.unit is UsageLimitUnit.DAY else self._periods.month
        return find(limit.counting_group, limit.counted_slug(slug), day)
