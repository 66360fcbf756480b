"""What proxies pass a day's limit by: the real counters, in simulated time (contract 3.1).

Time is simulated, so the same numbers give the same result.
"""

import heapq
import random
from collections.abc import Callable
from datetime import date
from functools import partial
from itertools import count

from proxy.limits import in_flight
from proxy.limits.counters import LanePart
from proxy.limits.days import DayCounters, DayLimit
from proxy.limits.in_flight import NEAR, Amounts, CounterKey
from proxy.limits.reservations import DayReservation
from schemas.limits import LimitType

GROUP, SLUG, DAY = "group", "lab/model", date(2025, 3, 1)


class Race:
    """Proxies that share a limit, in simulated time: an event is counted and told `FEEDBACK_S` after its end."""

    THRESHOLD, COUNTED, FEEDBACK_S, HEARD_S = 10_000, 8000, 0.12, 0.05
    _LIMIT = DayLimit(LimitType.REQUEST, THRESHOLD, GROUP, GROUP)

    def __init__(self, proxies: int, *, tells: bool) -> None:
        self.proxies = [_proxy(f"p{number}") for number in range(proxies)]
        self.admitted = self.counted = self.offset = self.COUNTED
        for one in self.proxies:
            one.take_part(GROUP, SLUG, DAY, 0, LanePart(self.counted, self.counted, self.counted, self.counted, 0))
        self._sequences = [count(1) for _ in self.proxies]
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._now_s = 0.0
        if tells:
            self._at(0.0, self._tell)

    def run(self, rate: float, length_s: float) -> int:
        """Return how many were admitted beyond the limit, at `rate` requests/s of about `length_s` seconds each."""
        chance, at_s = random.Random(4), 0.0
        while at_s < 1.2 * (self.THRESHOLD - self.COUNTED) / rate + 4 * length_s:
            at_s += chance.expovariate(rate)
            number, length = chance.randrange(len(self.proxies)), chance.expovariate(1 / length_s)
            self._at(at_s, partial(self._arrive, number, length))
        while self._due and self._due[0][0] <= at_s:
            self._now_s, _, what = heapq.heappop(self._due)
            what()
        return self.admitted - self.THRESHOLD

    def _at(self, when_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when_s, next(self._numbers), what))

    def _arrive(self, number: int, length_s: float) -> None:
        taken = self.proxies[number].reserve(DAY, SLUG, (GROUP,), [self._LIMIT], 1)
        if isinstance(taken, DayReservation):
            self.admitted += 1
            self._at(self._now_s + length_s, lambda: self._end(number, taken))

    def _end(self, number: int, taken: DayReservation) -> None:
        sequence = next(self._sequences[number])
        self.proxies[number].settle(taken, sequence, 1)
        self.proxies[number].acknowledge(0, f"p{number}", [(sequence, self.offset)])
        self.offset += 1
        self._at(self._now_s + self.FEEDBACK_S, self._count)

    def _count(self) -> None:
        self.counted += 1
        for one in self.proxies:
            one.take_part(GROUP, SLUG, DAY, 0, LanePart(self.counted, self.counted, self.counted, self.counted, 0))

    def _tell(self) -> None:
        for number, one in enumerate(self.proxies):
            one.others.expire(self._now_s)
            for key, own in one.others.due(self._now_s):
                self._at(self._now_s + self.HEARD_S, partial(self._hear, key, f"p{number}", own))
        self._at(self._now_s + in_flight.TELL_EVERY_S, self._tell)

    def _hear(self, key: CounterKey, name: str, own: Amounts) -> None:
        for one in self.proxies:
            one.others.take(key, name, own, self._now_s)


def _proxy(instance: str) -> DayCounters:
    days = DayCounters(instance)
    days.use_lanes(range(1), lambda *_: 0)
    days.take_whole(0, 0)
    days.tell_others_from(NEAR)
    return days
