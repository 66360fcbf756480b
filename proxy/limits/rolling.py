"""One rolling window of one limit: what it counts now, and from when on less (the rules stand in `windows`).

A window is rolled to a time, in whole microseconds, before it is asked.
"""

from collections import deque

from schemas.limits import RateLimitUnit

SUB_BUCKETS = 20
_COUNTED = SUB_BUCKETS + 1
WIDTH_US = {RateLimitUnit.SECOND: 1_000_000 // SUB_BUCKETS, RateLimitUnit.MINUTE: 60_000_000 // SUB_BUCKETS}
"""The length of a unit's sub-bucket."""
LOGGED = 1000
"""Up to this threshold requests are logged exactly: 8 KiB a window at the most."""
RESERVED_WAIT_US = 1_000_000
"""How long a refusal that rests on reservations asks to wait: they end with their requests, not with the window."""


class RollingCounter:
    """One window: 21 sub-buckets as a ring, and their sum; for requests a log beside it."""

    __slots__ = (
        "buckets",
        "counts_requests",
        "held",
        "held_total",
        "log",
        "log_since_us",
        "newest",
        "now_us",
        "total",
        "width_us",
    )

    def __init__(self, width_us: int, now_us: int, *, counts_requests: bool) -> None:
        """`counts_requests`: else it counts tokens, which are reserved first, and never goes by a log."""
        self.counts_requests = counts_requests
        self.width_us = width_us
        self.newest = now_us // width_us
        self.now_us = now_us
        self.buckets = [0] * _COUNTED
        self.total = 0
        self.held = [0] * _COUNTED
        """What of each sub-bucket are estimates of requests in flight."""
        self.held_total = 0
        self.log: deque[int] | None = deque() if counts_requests else None
        """When each request was admitted that is less than a unit ago; None where it goes by sub-buckets."""
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

    def admits(self, threshold: int, now_us: int) -> bool:
        """Roll to `now_us`; return whether less than the threshold counts then."""
        self.now_us = now_us
        if now_us // self.width_us > self.newest:
            self.roll(now_us)
        return (self.total if self.log is None and threshold > LOGGED else self.counted(threshold)) < threshold

    def counted(self, threshold: int) -> int:
        """Return what counts against the limit now, reservations included."""
        log = self._exact(threshold) if threshold <= LOGGED or self.log is not None else None
        return self.total if log is None else len(log)

    def admit(self, amount: int, threshold: int) -> tuple[int, int]:
        """Add one request, or the tokens reserved for it; return what `counted` and `empty_us` say then."""
        place = self.newest % _COUNTED
        self.buckets[place] += amount
        self.total = total = self.total + amount
        if not self.counts_requests:
            self.held[place] += amount
            self.held_total += amount
        elif self.log is not None:
            self.log.append(self.now_us)
            return self.counted(threshold), self.empty_us(threshold)
        return total, (self.newest + _COUNTED) * self.width_us if amount else self.empty_us(threshold)

    def add(self, bucket: int, amount: int) -> None:
        """Add to a sub-bucket that still counts."""
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

    def admits_us(self, threshold: int) -> int:
        """Return the time from which the limit admits, if nothing is added; it may lie in the past.

        What only reservations hold may be free sooner than the window's end: asked again after a second at most.
        """
        if threshold == 0:
            return self.now_us + SUB_BUCKETS * self.width_us
        log = self._exact(threshold)
        if log is not None:
            return log[-threshold] + SUB_BUCKETS * self.width_us if len(log) >= threshold else 0
        whole_us = self._below_us(threshold, reserved=True)
        if not self.held_total:
            return whole_us
        used_us = self._below_us(threshold, reserved=False)
        return min(whole_us, max(used_us, self.now_us + RESERVED_WAIT_US))

    def empty_us(self, threshold: int) -> int:
        """Return the time from which nothing that is counted now counts; it may lie in the past."""
        log = self._exact(threshold) if self.log is not None else None
        if log is not None:
            return log[-1] + SUB_BUCKETS * self.width_us if log else 0
        if self.total == 0:
            return 0
        bucket = self.newest
        while self.buckets[bucket % _COUNTED] == 0:
            bucket -= 1
        return (bucket + _COUNTED) * self.width_us

    def _exact(self, threshold: int) -> deque[int] | None:
        """Return the log of the last unit; None where the limit goes by sub-buckets."""
        if not self.counts_requests or threshold > LOGGED:
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
