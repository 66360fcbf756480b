"""Which counters metering tells at once, and which may wait for their lane's next `whole` (counting 5).

Never lets a limit be near without its readers knowing. Told at once is a counter

- that is not known to have been told, or whose limits have changed since;
- that was told AT_LATEST ago;
- that has grown since by SHARE of what was left of a limit then: at a steady rate a twentieth of the time that this
  lasts has passed. What it has grown in this lane counts as often as lanes have a part of it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from domain import days
from domain.limit_tree import Threshold
from metering.core import decisions, sums
from metering.core.alerts import PeriodSum
from metering.core.sums import Counter, LimitTotal, Totals
from schemas.limits import ANY_SLUG, LimitType

SHARE = 0.05
AT_LATEST = timedelta(seconds=30)

MOST = 50_000
"""Counters of a lane that are known to have been told; and that may wait, before `whole` is told early."""

LimitsOf = Callable[[str, str], Sequence[Threshold]]
"""Returns the thresholds that are compared with a group's counter of a slug, or of `*`."""


class ToldCounter(NamedTuple):
    """A counter as it was told: a lane's part, over how many lanes it lies, and what was left of its limits."""

    lane: str
    total: LimitTotal
    lanes: int
    limits: tuple[Threshold, ...]
    left: tuple[tuple[LimitType, int], ...]


class LaneTelling:
    """What one lane has told and has still to tell."""

    def __init__(self) -> None:
        self.waiting: dict[Counter, None] = {}
        """Counters that have changed since they were told."""
        self.daily: dict[Counter, int] = {}
        """Daily usage that has changed since it was told, with the version of the lane's own part."""
        self._told: dict[Counter, tuple[ToldCounter, datetime]] = {}

    def named(self, totals: Totals, limits_of: LimitsOf, now: datetime) -> Totals:
        """Take note of what a transaction named; return what of it is to be told at once."""
        self.daily |= {sums.counter_of(usage): usage.version for usage in totals.daily}
        due = tuple(total for total in totals.limits if self._is_due(total, limits_of, now))
        self.waiting |= dict.fromkeys(total.counter for total in totals.limits)
        return replace(totals, daily=(), limits=due)

    def told(self, standing: ToldCounter, now: datetime) -> None:
        """Take note of what was told."""
        counter = standing.total.counter
        self.waiting.pop(counter, None)
        self._told.pop(counter, None)  # so that the dictionary is in the order of the tellings
        self._told[counter] = (standing, now)
        while len(self._told) > MOST:
            del self._told[next(iter(self._told))]

    def some_waiting(self, most: int) -> list[Counter]:
        """Return at most so many that wait, in the order of counters."""
        return sorted(islice(self.waiting, most))

    def changed(self, limits_of: LimitsOf) -> list[Counter]:
        """Return those that wait although their limits have changed since they were told."""
        return [
            counter
            for counter in self.waiting
            if (known := self._told.get(counter)) is None or known[0].limits != limits(counter, limits_of)
        ]

    def _is_due(self, total: LimitTotal, limits_of: LimitsOf, now: datetime) -> bool:
        known = self._told.get(total.counter)
        if known is None:
            return True
        standing, at = known
        if now - at >= AT_LATEST or standing.limits != limits(total.counter, limits_of):
            return True
        for type_, left in standing.left:
            grown = (decisions.used(total, type_) - decisions.used(standing.total, type_)) * standing.lanes
            if grown > 0 and grown >= SHARE * left:
                return True
        return False


def limits(counter: Counter, limits_of: LimitsOf) -> tuple[Threshold, ...]:
    """Return all thresholds that a counter's growth brings nearer: its slug's, and those over all slugs."""
    return (*limits_of(counter.group_id, counter.model_slug), *limits_of(counter.group_id, ANY_SLUG))


def left_of(limits_of: LimitsOf, found: Iterable[PeriodSum]) -> Callable[[Counter], tuple[tuple[LimitType, int], ...]]:
    """Return what tells what is left of each threshold of a counter, by the sums over all lanes.

    What is used up is not among it; where a sum is missing it is 1.
    """
    known = {(one.total.counter, one.unit): one.total for one in found}

    def left(counter: Counter) -> tuple[tuple[LimitType, int], ...]:
        rest: list[tuple[LimitType, int]] = []
        for slug in (counter.model_slug, ANY_SLUG):
            for limit in limits_of(counter.group_id, slug):
                first = days.first_and_last(counter.day, limit.unit)[0]
                total = known.get((Counter(first, counter.group_id, slug), limit.unit))
                more = 1 if total is None else limit.value - decisions.used(total, limit.type)
                if more > 0:
                    rest.append((limit.type, more))
        return tuple(rest)

    return left
