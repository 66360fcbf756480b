"""Decides whether a request's rate limits admit it: rolling windows (contract 3.1).

Never reads a clock and never lets a real window [t, t + unit) hold more admitted requests than the threshold.

Rules:

- Time is taken in whole microseconds, what our clocks and Redis give.
- REQUEST limits up to 1,000 go by an exact log: what was admitted at `a` stops counting at a + unit. Where the log does
  not know a whole unit yet, because the threshold was above 1,000 just before, they go by sub-buckets.
- All others are cut in 20 sub-buckets. Sub-bucket k is [k * width, (k + 1) * width).
- Two admissions less than a unit apart lie at most 20 sub-buckets apart, so the current one and the 20 before it are
  counted: 21 in all. What was admitted at `a` stops counting when the 21st sub-bucket after its own begins: not before
  a + unit, and at most one sub-bucket later.
- A limit admits while what is counted is below its threshold, whatever the request's own size.
- A reservation charges every limit or none. A refusal names the limit that lasts longest of those that refuse, as the
  standings do, and asks to wait until all admit: 1 s at most for what estimates of requests in flight hold alone.
- A threshold of 0 admits nothing; its refusal asks for one unit.
- Counters are kept by (counting group, slug, type, unit): a changed threshold finds the content it left.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from domain import amounts
from schemas.limits import ANY_SLUG, LimitType, RateLimitUnit

SUB_BUCKETS = 20
_COUNTED = SUB_BUCKETS + 1
WIDTH_US = {RateLimitUnit.SECOND: 1_000_000 // SUB_BUCKETS, RateLimitUnit.MINUTE: 60_000_000 // SUB_BUCKETS}
"""The length of a unit's sub-bucket."""
_SWEEP = 10_000
LOGGED = 1000
"""Up to this threshold requests are logged exactly: 8 KiB a window at the most."""
RESERVED_WAIT_US = 1_000_000
"""How long a refusal that rests on reservations asks to wait: they end with their requests, not with the window."""

_Key = tuple[str, str, LimitType, RateLimitUnit]


@dataclass(frozen=True, slots=True)
class WindowLimit:
    """At most `threshold` of `type` in any rolling `unit`, set by `source_group`, counted for `counting_group`."""

    type: LimitType
    unit: RateLimitUnit
    threshold: int
    source_group: str
    counting_group: str
    over_all: bool = False
    """Whether it counts all slugs of the group together."""

    def counted_slug(self, slug: str) -> str:
        """Return the slug that its counter bears, for a request of `slug`."""
        return ANY_SLUG if self.over_all else slug


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
    """Tokens charged to each TOKEN limit, and those of its parts to the others."""
    admitted_us: int
    standings: tuple[LimitStanding, ...]
    """Right after the admission: of requests, and of tokens of any type, the limit with the least remaining, of equals
    the last to reset."""
    ended: bool = False
    output: int = 0
    """What of the estimate is for the answer."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No place: nothing was taken from any window."""

    limit: WindowLimit
    """Of the limits that refuse, the one that lasts longest."""
    retry_after_ms: int
    """Whole milliseconds, rounded up, after which all limits admit, if nobody else takes the place."""
    standings: tuple[LimitStanding, ...]

    @property
    def retry_after_s(self) -> float:
        """The same in seconds."""
        return self.retry_after_ms / 1000


class Counted(Protocol):
    """What is known of one limit's window now."""

    def counted(self, limit: WindowLimit) -> int:
        """Return what counts against the limit, reservations included."""

    def admits_us(self, limit: WindowLimit) -> int:
        """Return the time from which the limit admits, if nothing is added; it may lie in the past."""

    def empty_us(self, limit: WindowLimit) -> int:
        """Return the time from which nothing that is counted now counts; it may lie in the past."""


class _Counter:
    """One window: 21 sub-buckets as a ring, and their sum; for requests a log beside it."""

    __slots__ = ("buckets", "held", "held_total", "log", "log_since_us", "newest", "now_us", "total", "width_us")

    def __init__(self, width_us: int, now_us: int) -> None:
        self.width_us = width_us
        self.newest = now_us // width_us
        self.now_us = now_us
        self.buckets = [0] * _COUNTED
        self.total = 0
        self.held = [0] * _COUNTED
        """What of each sub-bucket are estimates of requests in flight."""
        self.held_total = 0
        self.log: deque[int] | None = deque()
        """When each request was admitted that is less than a unit ago; None while the threshold is above `LOGGED`."""
        self.log_since_us = now_us - SUB_BUCKETS * width_us
        """The log knows every request admitted since."""

    def roll(self, now_us: int) -> None:
        """Make the sub-bucket of `now_us` the newest, and drop what has left the window."""
        self.now_us = now_us
        bucket = now_us // self.width_us
        steps = bucket - self.newest
        if steps <= 0:
            return
        if steps >= _COUNTED:
            self.buckets = [0] * _COUNTED
            self.held = [0] * _COUNTED
            self.total = self.held_total = 0
        elif self.total:
            for left in range(self.newest + 1, bucket + 1):
                place = left % _COUNTED
                self.total -= self.buckets[place]
                self.held_total -= self.held[place]
                self.buckets[place] = self.held[place] = 0
        self.newest = bucket

    def counted(self, limit: WindowLimit) -> int:
        """Return what counts against the limit now, reservations included."""
        log = self._exact(limit)
        return self.total if log is None else len(log)

    def admit(self, limit: WindowLimit, amount: int) -> None:
        """Add one request, or the tokens reserved for it."""
        self.add(self.newest, amount)
        if limit.type is not LimitType.REQUEST:
            self.held[self.newest % _COUNTED] += amount
            self.held_total += amount
        elif self.log is not None:
            self.log.append(self.now_us)

    def add(self, bucket: int, amount: int) -> None:
        self.buckets[bucket % _COUNTED] += amount
        self.total += amount

    def settle(self, admitted_us: int, estimate: int, used: int) -> None:
        """Correct an admission: in its own sub-bucket while that counts; later a refund is void, the rest is now's."""
        bucket = admitted_us // self.width_us
        if bucket > self.newest - _COUNTED:
            self.held[bucket % _COUNTED] -= estimate
            self.held_total -= estimate
            self.add(bucket, used - estimate)
        elif used > estimate:
            self.add(self.newest, used - estimate)

    def admits_us(self, limit: WindowLimit) -> int:
        """Return the time from which the limit admits, if nothing is added; it may lie in the past.

        What only reservations hold may be free sooner than the window's end: asked again after a second at most.
        """
        threshold = limit.threshold
        if threshold == 0:
            return self.now_us + SUB_BUCKETS * self.width_us
        log = self._exact(limit)
        if log is not None:
            return log[-threshold] + SUB_BUCKETS * self.width_us if len(log) >= threshold else 0
        whole_us = self._below_us(threshold, reserved=True)
        if not self.held_total:
            return whole_us
        used_us = self._below_us(threshold, reserved=False)
        return min(whole_us, max(used_us, self.now_us + RESERVED_WAIT_US))

    def empty_us(self, limit: WindowLimit) -> int:
        """Return the time from which nothing that is counted now counts; it may lie in the past."""
        log = self._exact(limit)
        if log is not None:
            return log[-1] + SUB_BUCKETS * self.width_us if log else 0
        if self.total == 0:
            return 0
        bucket = self.newest
        while self.buckets[bucket % _COUNTED] == 0:
            bucket -= 1
        return (bucket + _COUNTED) * self.width_us

    def _exact(self, limit: WindowLimit) -> deque[int] | None:
        """Return the log of the last unit; None where the limit goes by sub-buckets."""
        if limit.type is not LimitType.REQUEST:
            return None
        if limit.threshold > LOGGED:
            self.log = None
            return None
        if self.log is None:
            self.log, self.log_since_us = deque(), self.now_us
        began_us = self.now_us - SUB_BUCKETS * self.width_us
        while self.log and self.log[0] <= began_us:
            self.log.popleft()
        return self.log if self.log_since_us <= began_us else None

    def _below_us(self, threshold: int, *, reserved: bool) -> int:
        left = self.total if reserved else self.total - self.held_total
        bucket = self.newest - _COUNTED
        while left >= threshold:
            bucket += 1
            place = bucket % _COUNTED
            left -= self.buckets[place] if reserved else self.buckets[place] - self.held[place]
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

    def reserve(
        self, slug: str, limits: Sequence[WindowLimit], tokens: int, now: float, output_tokens: int = 0
    ) -> Reservation | Refusal:
        """Take one request and `tokens` (estimated, not negative) from every limit, or nothing from any.

        `output_tokens` are what of `tokens` is for the answer.
        """
        if not limits:
            return Reservation(slug, limits, tokens, 0, ())
        given_us, now_us = self._read(now)
        counters = [self._counter(slug, limit, now_us) for limit in limits]
        for limit, counter in zip(limits, counters, strict=True):
            if counter.counted(limit) >= limit.threshold:
                return refuse(limits, counters, given_us)
        for limit, counter in zip(limits, counters, strict=True):
            counter.admit(limit, amounts.counted(limit.type, 1, tokens, output_tokens))
        seen = standings(limits, counters, given_us)
        return Reservation(slug, limits, tokens, now_us, seen, output=output_tokens)

    def settle(self, reservation: Reservation, tokens: int, now: float, output_tokens: int = 0) -> None:
        """Replace the estimate by what was used (not negative)."""
        if reservation.ended:
            return
        reservation.ended = True
        if not reservation.limits:
            return
        _, now_us = self._read(now)
        for limit in reservation.limits:
            if limit.type is not LimitType.REQUEST:
                estimate = amounts.counted(limit.type, 1, reservation.estimate, reservation.output)
                used = amounts.counted(limit.type, 1, tokens, output_tokens)
                # Looked up again: an empty counter may have been forgotten meanwhile, and one in use never is.
                self._counter(reservation.slug, limit, now_us).settle(reservation.admitted_us, estimate, used)

    def release(self, reservation: Reservation, now: float) -> None:
        """Give the tokens back, but never the place in a REQUEST window: the upstream did not answer with 2xx."""
        self.settle(reservation, 0, now)

    def standings(self, slug: str, limits: Sequence[WindowLimit], now: float) -> tuple[LimitStanding, ...]:
        """Return how the limits stand now: of requests, and of tokens of any type, the one with the least remaining."""
        given_us, now_us = self._read(now)
        return standings(limits, [self._counter(slug, limit, now_us) for limit in limits], given_us)

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
        key = (limit.counting_group, limit.counted_slug(slug), limit.type, limit.unit)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter(WIDTH_US[limit.unit], now_us)
        else:
            counter.roll(now_us)
        return counter


def refuse(limits: Sequence[WindowLimit], counters: Sequence[Counted], given_us: int) -> Refusal:
    """Return the refusal of limits of which at least one is full.

    `given_us` is the clock as it was read: where it has stepped back, the caller waits by that clock too.
    """
    seen = standings(limits, counters, given_us)
    waits = [
        (counter.admits_us(limit), counter.empty_us(limit), limit)
        for limit, counter in zip(limits, counters, strict=True)
        if counter.counted(limit) >= limit.threshold
    ]
    admits_us, _, lasting = max(waits, key=lambda wait: wait[:2])
    return Refusal(lasting, -((given_us - admits_us) // 1000), seen)


def standings(limits: Sequence[WindowLimit], counters: Sequence[Counted], given_us: int) -> tuple[LimitStanding, ...]:
    """Return of requests, and of tokens, the limit with the least remaining, of equals the last to reset."""
    least: dict[bool, LimitStanding] = {}
    for limit, counter in zip(limits, counters, strict=True):
        remaining = max(0, limit.threshold - counter.counted(limit))
        reset_s = max(0, counter.empty_us(limit) - given_us) / 1_000_000
        of_requests = limit.type is LimitType.REQUEST
        known = least.get(of_requests)
        if known is None or (remaining, -reset_s) < (known.remaining, -known.reset_s):
            least[of_requests] = LimitStanding(limit, remaining, reset_s)
    return tuple(least.values())
