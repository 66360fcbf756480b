"""How many decisions metering tells for the events that it counts: its real rules, in simulated time (counting 5).

Time is simulated, so the same numbers give the same result.
"""

import random
from datetime import UTC, datetime, timedelta

from domain.limit_tree import Threshold
from metering.core import telling
from metering.core.alerts import PeriodSum
from metering.core.sums import Counter, LimitTotal, Totals
from metering.core.telling import LaneTelling, ToldCounter
from schemas.limits import ANY_SLUG, LimitType, UsageLimitUnit

TRANSACTION_S, WHOLE_S = 0.06, 30.0
START, SLUG = datetime(2025, 3, 1, tzinfo=UTC), "lab/model"


class Lane:
    """A lane whose groups are used alike, each with a limit on the requests of a day."""

    def __init__(self, groups: int, threshold: int) -> None:
        self.told = 0
        self._counters = [Counter(START.date(), f"group-{number}", SLUG) for number in range(groups)]
        self._counted = [0] * groups
        self._limit = (Threshold(LimitType.REQUEST, threshold),)
        self._telling = LaneTelling()

    def run(self, rate: float, seconds: float) -> float:
        """Return how many decisions are told for 1,000 events; the first half minute, when all is new, is left out."""
        chance, events, before = random.Random(5), 0, 0
        steps, every = round(seconds / TRANSACTION_S), round(WHOLE_S / TRANSACTION_S)
        for step in range(steps):
            now = START + timedelta(seconds=step * TRANSACTION_S)
            touched = [chance.randrange(len(self._counters)) for _ in range(round(rate * TRANSACTION_S))]
            for one in touched:
                self._counted[one] += 1
            totals = Totals("lane", (), tuple(self._total(one) for one in sorted(set(touched))), step)
            for total in self._telling.named(totals, self._limits_of, now).limits:
                self._tell(total, now)
            if step % every == every - 1:
                for counter in list(self._telling.waiting):
                    self._tell(self._total(self._counters.index(counter)), now)
            if step < every:
                before = self.told
            else:
                events += len(touched)
        return 1000 * (self.told - before) / events

    def _limits_of(self, _group_id: str, slug: str) -> tuple[Threshold, ...]:
        return () if slug == ANY_SLUG else self._limit

    def _total(self, number: int) -> LimitTotal:
        return LimitTotal(self._counters[number], self._counted[number], 0, self._counted[number])

    def _tell(self, total: LimitTotal, now: datetime) -> None:
        self.told += 1
        found = [PeriodSum(total, UsageLimitUnit.DAY)]
        left = telling.left_of(self._limits_of, found)(total.counter)
        self._telling.told(ToldCounter("lane", total, 1, telling.limits(total.counter, self._limits_of), left), now)
