"""Decides whether a request's rate limits admit it: rolling windows (contract 3.1).

Never lets a real window [t, t + unit) hold more admitted requests than the threshold. It reads no clock.

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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from domain import amounts
from proxy.limits.rolling import WIDTH_US, RollingCounter
from schemas.limits import ANY_SLUG, LimitType, RateLimitUnit

_SWEEP = 10_000
_MOST_PLACES = 10_000
"""Chains whose counters are remembered, until `forget_idle`."""
_REQUEST = LimitType.REQUEST

ByType = tuple[int, int, int, int, int]
"""What counts against limits of each type, as `amounts.each` has it."""
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


class LimitStanding(msgspec.Struct, frozen=True):
    """How one rate limit stands, for the ``x-ratelimit-*`` headers (contract 3)."""

    limit: WindowLimit
    remaining: int
    """What may still be taken now: the threshold less what is counted, reserved tokens included; never negative."""
    reset_s: float
    """Seconds until everything that is counted now has left the window; 0 where nothing is."""


class Reservation(msgspec.Struct, eq=False):
    """A place in every window of one request. It ends once, by `settle` or `release`; what comes later is ignored."""

    slug: str
    limits: Sequence[WindowLimit]
    reserved: ByType
    """What each limit holds of it, by its type."""
    admitted_us: int
    seen: Sequence[tuple[int, int]]
    """Of each limit right after the admission: what was counted, and when nothing of that is any more."""
    given_us: int
    """When that was, by the clock as it was read."""
    one_of_each: bool = False
    """Whether there is nothing to choose from for the headers."""
    used: ByType | None = None
    """What it was settled with; None: it has not ended."""

    @property
    def standings(self) -> tuple[LimitStanding, ...]:
        """Return how its limits stood after the admission; once it was settled, with what it used in place of the
        estimate: of requests, and of tokens of any type, the one with the least remaining, of equals the last to reset.
        """
        used, reserved, seen = self.used, self.reserved, self.seen
        if used is not None and used != reserved:
            places = [amounts.PLACE[limit.type] for limit in self.limits]
            seen = [
                (counted - reserved[place] + used[place], empty_us)
                for (counted, empty_us), place in zip(seen, places, strict=True)
            ]
        return _shown(self.limits, seen, self.given_us, one_of_each=self.one_of_each)

    def end(self, tokens: int, output_tokens: int) -> ByType | None:
        """Note what it used, the first time; return that, or None where it has ended before."""
        if self.used is not None:
            return None
        self.used = used = amounts.each(1, tokens, output_tokens)
        return used


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
    """What is known of one limit's window now; each call names the limit's threshold."""

    def counted(self, threshold: int) -> int:
        """Return what counts against a limit, reservations included."""

    def admits_us(self, threshold: int) -> int:
        """Return the time from which a limit admits, if nothing is added; it may lie in the past."""

    def empty_us(self, threshold: int) -> int:
        """Return the time from which nothing that is counted now counts; it may lie in the past."""


class _Charged:
    """What the requests of one chain touch."""

    __slots__ = ("counters", "held", "limits", "one_of_each", "slug", "tokens")

    def __init__(self, slug: str, limits: Sequence[WindowLimit], counters: list[RollingCounter]) -> None:
        self.slug = slug
        self.limits = limits
        self.counters = counters
        places = [amounts.PLACE[limit.type] for limit in limits]
        self.held = list(zip(counters, places, [limit.threshold for limit in limits], strict=True))
        """Each limit's counter, what of a request it counts, and its threshold."""
        self.tokens = [each for each in zip(counters, places, strict=True) if not each[0].counts_requests]
        """What is corrected when a request ends."""
        of_requests = [limit.type is _REQUEST for limit in limits]
        self.one_of_each = len(set(of_requests)) == len(limits)
        """Whether there is nothing to choose from for the headers."""


class RateWindows:
    """All rate windows of one proxy. `now` is seconds of a clock of the caller's choice, always the same one.

    A clock that steps back stands still here until it has caught up, so no window reopens (contract 7).
    """

    def __init__(self) -> None:
        self._counters: dict[_Key, RollingCounter] = {}
        self._charged: dict[int, _Charged] = {}
        """By the identity of the limits, which an entry keeps alive."""
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
        amount = amounts.each(1, tokens, output_tokens)
        if not limits:
            return Reservation(slug, limits, amount, 0, (), 0)
        given_us, now_us = self._read(now)
        charged = self._found(slug, limits, now_us)
        for counter, _, threshold in charged.held:
            if not counter.admits(threshold, now_us):
                return refuse(limits, self._rolled(slug, limits, now_us), given_us)
        seen = [counter.admit(amount[place], threshold) for counter, place, threshold in charged.held]
        return Reservation(slug, limits, amount, now_us, seen, given_us, charged.one_of_each)

    def settle(self, reservation: Reservation, tokens: int, now: float, output_tokens: int = 0) -> None:
        """Replace the estimate by what was used (not negative)."""
        used = reservation.end(tokens, output_tokens)
        if used is None or not reservation.limits:
            return
        _, now_us = self._read(now)
        # Looked up again: an empty counter may have been forgotten meanwhile, and one in use never is.
        charged = self._found(reservation.slug, reservation.limits, now_us)
        reserved = reservation.reserved
        for counter, place in charged.tokens:
            counter.roll(now_us)
            counter.settle(reservation.admitted_us, reserved[place], used[place])

    def release(self, reservation: Reservation, now: float) -> None:
        """Give the tokens back, but never the place in a REQUEST window: the upstream did not answer with 2xx."""
        self.settle(reservation, 0, now)

    def standings(self, slug: str, limits: Sequence[WindowLimit], now: float) -> tuple[LimitStanding, ...]:
        """Return how the limits stand now: of requests, and of tokens of any type, the one with the least remaining."""
        given_us, now_us = self._read(now)
        return standings(limits, self._rolled(slug, limits, now_us), given_us)

    def forget_idle(self, now: float, at_most: int = _SWEEP) -> None:
        """Drop counters that count nothing. Looks at `at_most` of them, the next call goes on from there."""
        _, now_us = self._read(now)
        self._charged.clear()
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
        if given_us > self._latest_us:  # noqa: PLR1730 - a third of the cost of `max`
            self._latest_us = given_us
        return given_us, self._latest_us

    def _rolled(self, slug: str, limits: Sequence[WindowLimit], now_us: int) -> list[RollingCounter]:
        """Return the counters of a chain, rolled to `now_us`."""
        counters = self._found(slug, limits, now_us).counters
        for counter in counters:
            counter.roll(now_us)
        return counters

    def _found(self, slug: str, limits: Sequence[WindowLimit], now_us: int) -> _Charged:
        """Return what a chain's requests touch; it is looked up once for each chain until `forget_idle`."""
        found = self._charged.get(id(limits))
        if found is None or found.slug != slug:
            if len(self._charged) >= _MOST_PLACES:
                self._charged.clear()
            counters = [self._counter(slug, limit, now_us) for limit in limits]
            found = self._charged[id(limits)] = _Charged(slug, limits, counters)
        return found

    def _counter(self, slug: str, limit: WindowLimit, now_us: int) -> RollingCounter:
        key = (limit.counting_group, limit.counted_slug(slug), limit.type, limit.unit)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = RollingCounter(
                WIDTH_US[limit.unit], now_us, counts_requests=limit.type is _REQUEST
            )
        return counter


def refuse(limits: Sequence[WindowLimit], counters: Sequence[Counted], given_us: int) -> Refusal:
    """Return the refusal of limits of which at least one is full.

    `given_us` is the clock as it was read: where it has stepped back, the caller waits by that clock too.
    """
    pairs = list(zip(limits, counters, strict=True))
    waits = [
        (counter.admits_us(limit.threshold), counter.empty_us(limit.threshold), limit)
        for limit, counter in pairs
        if counter.counted(limit.threshold) >= limit.threshold
    ]
    admits_us, _, lasting = max(waits, key=lambda wait: wait[:2])
    of_requests = lasting.type is _REQUEST
    told = [(limit, each) for limit, each in pairs if limit is lasting or (limit.type is _REQUEST) is not of_requests]
    seen = standings([limit for limit, _ in told], [counter for _, counter in told], given_us)
    return Refusal(lasting, -((given_us - admits_us) // 1000), seen)


def standings(limits: Sequence[WindowLimit], counters: Sequence[Counted], given_us: int) -> tuple[LimitStanding, ...]:
    """Return of requests, and of tokens, the limit with the least remaining, of equals the last to reset."""
    pairs = zip(limits, counters, strict=True)
    seen = [(counter.counted(limit.threshold), counter.empty_us(limit.threshold)) for limit, counter in pairs]
    return _shown(limits, seen, given_us)


def _shown(
    limits: Sequence[WindowLimit], seen: Sequence[tuple[int, int]], given_us: int, *, one_of_each: bool = False
) -> tuple[LimitStanding, ...]:
    """Return the standings to show, from what is counted of each limit and when nothing of it is any more."""
    found = []
    for limit, (counted, empty_us) in zip(limits, seen, strict=True):
        left, left_us = limit.threshold - counted, empty_us - given_us
        reset_s = left_us / 1_000_000 if left_us > 0 else 0.0
        found.append(LimitStanding(limit, max(0, left), reset_s))
    if one_of_each:
        return tuple(found)
    least: dict[bool, LimitStanding] = {}
    for standing in found:
        of_requests = standing.limit.type is _REQUEST
        known = least.get(of_requests)
        if known is None or (standing.remaining, -standing.reset_s) < (known.remaining, -known.reset_s):
            least[of_requests] = standing
    return tuple(least.values())
