"""Decides whether a request's rate limits admit it: rolling windows of 20 sub-buckets (contract 3.1).

Never reads a clock and never lets a real window [t, t + unit) hold more admitted requests than the threshold.

Rules:

- Time is taken in whole microseconds, what our clocks and Redis give. Sub-bucket k is [k * width, (k + 1) * width).
- Two admissions less than a unit apart lie at most 20 sub-buckets apart, so the current one and the 20 before it are
  counted: 21 in all. What was admitted at `a` stops counting when the 21st sub-bucket after its own begins: not before
  a + unit, and at most one sub-bucket later.
- A limit admits while what is counted is below its threshold, whatever the request's own size.
- A reservation charges every limit or none. A refusal names the first limit hit, and asks to wait until all admit.
- Counters are kept by (counting group, slug, type, unit): a changed threshold finds the content it left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from schemas.limits import LimitType, RateLimitUnit

SUB_BUCKETS = 20
_COUNTED = SUB_BUCKETS + 1
_WIDTH_US = {RateLimitUnit.SECOND: 1_000_000 // SUB_BUCKETS, RateLimitUnit.MINUTE: 60_000_000 // SUB_BUCKETS}
_SWEEP = 10_000

_Key = tuple[str, str, LimitType, RateLimitUnit]


@dataclass(frozen=True, slots=True)
class WindowLimit:
    """At most `threshold` of `type` in any rolling `unit`, set by `source_group`, counted for `counting_group`."""

    type: LimitType
    unit: RateLimitUnit
    threshold: int
    source_group: str
    counting_group: str


@dataclass(frozen=True, slots=True)
class RateChain:
    """Every rate limit that holds for one group and slug. In a shared store one tree's counters lie together."""

    root_group: str
    slug: str
    limits: tuple[WindowLimit, ...]


@dataclass(slots=True)
class LimitStanding:
    """How one rate limit stands, for the ``x-ratelimit-*`` headers (contract 3)."""

    limit: WindowLimit
    remaining: int
    """What may still be taken now: the threshold less what is counted, reserved tokens included; never negative."""
    reset_s: float
    """Seconds until everything that is counted now has left the window; 0 where nothing is."""


@dataclass(slots=True, eq=False)
class Reservation:
    """A place in every window of one request. It ends once, by `settle` or `release`; what comes later is ignored."""

    slug: str
    limits: Sequence[WindowLimit]
    estimate: int
    """Tokens charged to each TOKEN limit."""
    admitted_us: int
    standings: tuple[LimitStanding, ...]
    """Right after the admission: of each type the limit with the least remaining, the first of equals."""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """No place: nothing was taken from any window."""

    limit: WindowLimit
    """The first limit hit."""
    retry_after_ms: int
    """Whole milliseconds, rounded up, after which all limits admit, if nobody else takes the place."""
    standings: tuple[LimitStanding, ...]

    @property
    def retry_after_s(self) -> float:
        """The same in seconds."""
        return self.retry_after_ms / 1000


class _Counter:
    """One window: 21 sub-buckets as a ring, and their sum."""

    __slots__ = ("buckets", "newest", "total", "width_us")

    def __init__(self, width_us: int, now_us: int) -> None:
        self.width_us = width_us
        self.newest = now_us // width_us
        self.buckets = [0] * _COUNTED
        self.total = 0

    def roll(self, now_us: int) -> None:
        """Make the sub-bucket of `now_us` the newest, and drop what has left the window."""
        bucket = now_us // self.width_us
        steps = bucket - self.newest
        if steps <= 0:
            return
        if steps >= _COUNTED:
            self.buckets = [0] * _COUNTED
            self.total = 0
        elif self.total:
            for left in range(self.newest + 1, bucket + 1):
                self.total -= self.buckets[left % _COUNTED]
                self.buckets[left % _COUNTED] = 0
        self.newest = bucket

    def add(self, bucket: int, amount: int) -> None:
        self.buckets[bucket % _COUNTED] += amount
        self.total += amount

    def settle(self, admitted_us: int, difference: int) -> None:
        """Correct an admission: in its own sub-bucket while that counts; later a refund is void, the rest is now's."""
        bucket = admitted_us // self.width_us
        if bucket > self.newest - _COUNTED:
            self.add(bucket, difference)
        elif difference > 0:
            self.add(self.newest, difference)

    def below_us(self, threshold: int) -> int:
        """Return the time from which less than `threshold` is counted, if nothing is added; it may lie in the past."""
        left = self.total
        bucket = self.newest - _COUNTED
        while left >= threshold:
            bucket += 1
            left -= self.buckets[bucket % _COUNTED]
        return (bucket + _COUNTED) * self.width_us

    def empty_us(self) -> int:
        """Return the time from which nothing that is counted now counts; it may lie in the past."""
        if self.total == 0:
            return 0
        bucket = self.newest
        while self.buckets[bucket % _COUNTED] == 0:
            bucket -= 1
        return (bucket + _COUNTED) * self.width_us


class Windows:
    """All rate windows of one proxy. `now` is seconds of a clock of the caller's choice, always the same one.

    A clock that steps back stands still here until it has caught up, so no window reopens (contract 7).
    """

    def __init__(self) -> None:
        self._counters: dict[_Key, _Counter] = {}
        self._latest_us = 0
        self._to_sweep: list[_Key] = []

    def __len__(self) -> int:
        return len(self._counters)

    def reserve(self, slug: str, limits: Sequence[WindowLimit], tokens: int, now: float) -> Reservation | Refusal:
        """Take one request and `tokens` (estimated, not negative) from every limit, or nothing from any."""
        if not limits:
            return Reservation(slug, limits, tokens, 0, ())
        given_us, now_us = self._read(now)
        counters = [self._counter(slug, limit, now_us) for limit in limits]
        for limit, counter in zip(limits, counters, strict=True):
            if counter.total >= limit.threshold:
                return _refuse(limit, limits, counters, given_us)
        for limit, counter in zip(limits, counters, strict=True):
            counter.add(counter.newest, 1 if limit.type is LimitType.REQUEST else tokens)
        return Reservation(slug, limits, tokens, now_us, _standings(limits, counters, given_us))

    def settle(self, reservation: Reservation, tokens: int, now: float) -> None:
        """Replace the estimate by what was used (not negative)."""
        if reservation.ended:
            return
        reservation.ended = True
        difference = tokens - reservation.estimate
        if difference == 0:
            return
        _, now_us = self._read(now)
        for limit in reservation.limits:
            if limit.type is LimitType.TOKEN:
                # Looked up again: an empty counter may have been forgotten meanwhile, and one in use never is.
                self._counter(reservation.slug, limit, now_us).settle(reservation.admitted_us, difference)

    def release(self, reservation: Reservation, now: float) -> None:
        """Give the tokens back, but never the place in a REQUEST window: the upstream did not answer with 2xx."""
        self.settle(reservation, 0, now)

    def standings(self, slug: str, limits: Sequence[WindowLimit], now: float) -> tuple[LimitStanding, ...]:
        """Return how the limits stand now: of each type the one with the least remaining, the first of equals."""
        given_us, now_us = self._read(now)
        return _standings(limits, [self._counter(slug, limit, now_us) for limit in limits], given_us)

    def forget_idle(self, now: float, at_most: int = _SWEEP) -> None:
        """Drop counters that count nothing. Looks at `at_most` of them, the next call goes on from there."""
        _, now_us = self._read(now)
        if not self._to_sweep:
            self._to_sweep = list(self._counters)
        for key in self._to_sweep[-at_most:]:
            counter = self._counters[key]
            counter.roll(now_us)
            if counter.total == 0:
                del self._counters[key]
        del self._to_sweep[-at_most:]

    def _read(self, now: float) -> tuple[int, int]:
        """Return `now` as it is and as it counts, in microseconds."""
        given_us = round(now * 1_000_000)
        self._latest_us = max(self._latest_us, given_us)
        return given_us, self._latest_us

    def _counter(self, slug: str, limit: WindowLimit, now_us: int) -> _Counter:
        key = (limit.counting_group, slug, limit.type, limit.unit)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter(_WIDTH_US[limit.unit], now_us)
        else:
            counter.roll(now_us)
        return counter


def _refuse(first: WindowLimit, limits: Sequence[WindowLimit], counters: Sequence[_Counter], given_us: int) -> Refusal:
    # Counted from the clock as given: where it has stepped back, the caller waits by that clock too.
    admits_us = max(counter.below_us(limit.threshold) for limit, counter in zip(limits, counters, strict=True))
    return Refusal(first, -((given_us - admits_us) // 1000), _standings(limits, counters, given_us))


def _standings(limits: Sequence[WindowLimit], counters: Sequence[_Counter], given_us: int) -> tuple[LimitStanding, ...]:
    least: dict[LimitType, LimitStanding] = {}
    for limit, counter in zip(limits, counters, strict=True):
        remaining = max(0, limit.threshold - counter.total)
        known = least.get(limit.type)
        if known is None or remaining < known.remaining:
            least[limit.type] = LimitStanding(limit, remaining, max(0, counter.empty_us() - given_us) / 1_000_000)
    return tuple(least.values())
