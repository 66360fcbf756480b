"""The retry rule: what becomes of a delivery after an attempt, and how long an attempt may take (spec 5).

Never reads a clock and never draws: the moment and the jitter are handed in.

Rules, over one run (a delivery's clock starts with the run's first attempt):

- 2xx is success. 5xx, 429, 408, timeouts and network failures are tried again; other statuses end it at once.
- The n-th wait is `backoff_first_s` doubled n - 1 times, at most `backoff_most_s`, plus up to `jitter_share` of it.
- `Retry-After` lengthens a wait, never shortens it.
- No attempt is planned at or after `bound_s`: where the next one would be, the delivery is given up at once.
- An attempt takes at most `attempt_timeout_s`, or what is left of the bound. One that begins more than `away_after_s`
  later than planned comes after a dispatcher or database that was away: it is the one more that the delivery is due,
  and has its full time.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_RETRIED = frozenset({408, 429})
_MOST_DOUBLINGS = 40
_LONGEST_RETRY_AFTER_S = 10**9  # beyond it every policy gives up; larger numbers would overflow a datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """How long and how often a delivery is tried. The defaults are the spec's."""

    bound_s: float = 15.0
    attempt_timeout_s: float = 10.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 5.0
    jitter_share: float = 0.1
    away_after_s: float = 1.0
    shortest_attempt_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt met: a status, or the error that kept it from getting one."""

    status_code: int | None
    error: str | None
    duration_ms: int
    retry_after: str | None = None
    """The answer's header as it came."""
    final: bool = False
    """Another attempt at the same URL cannot do better: the URL or its address is not allowed."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The next attempt begins at `when`."""

    when: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A dead letter, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """No attempt was made: the delivery waits on as if it had not been claimed."""


Decision = Delivered | RetryAt | GiveUp | Release


def decide(
    outcome: Outcome, *, attempt_number: int, first_attempt_at: datetime, now: datetime, policy: Policy, jitter: float
) -> Decision:
    """Judge attempt `attempt_number` (from 1, within the run), which ended at `now`. `jitter` lies in [0, 1]."""
    status = outcome.status_code
    if status is not None and 200 <= status < 300:
        return Delivered()
    if outcome.final or (status is not None and status < 500 and status not in _RETRIED):
        return GiveUp(_what(outcome))
    wait_s = backoff_s(attempt_number, policy, jitter)
    asked_s = retry_after_s(outcome.retry_after, now)
    bound = f"the {policy.bound_s:g} s after the first attempt"
    last = first_attempt_at + timedelta(seconds=policy.bound_s)
    if asked_s is not None and now + timedelta(seconds=asked_s) >= last:
        return GiveUp(f"{_what(outcome)}; its Retry-After lies beyond {bound}")
    when = now + timedelta(seconds=max(wait_s, asked_s or 0.0))
    if when >= last:
        return GiveUp(f"no success within {bound}; the last: {_what(outcome)}")
    return RetryAt(when)


def backoff_s(attempt_number: int, policy: Policy, jitter: float) -> float:
    """Give the wait after attempt `attempt_number` (from 1): at least the plain doubling, so no attempt comes early."""
    doubled = policy.backoff_first_s * 2.0 ** min(attempt_number - 1, _MOST_DOUBLINGS)
    return min(doubled, policy.backoff_most_s) * (1 + policy.jitter_share * jitter)


def attempt_timeout_s(first_attempt_at: datetime, planned_at: datetime, now: datetime, policy: Policy) -> float:
    """Give how long the attempt that begins at `now` and was planned for `planned_at` may take."""
    if (now - planned_at).total_seconds() > policy.away_after_s:
        return policy.attempt_timeout_s
    left_s = policy.bound_s - (now - first_attempt_at).total_seconds()
    return min(policy.attempt_timeout_s, max(left_s, policy.shortest_attempt_s))


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110 section 10.2.3) as seconds from `now`; None where it says nothing usable."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]+", text):
        return float(min(int(text[:12]), _LONGEST_RETRY_AFTER_S))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (aware - now).total_seconds())


def _what(outcome: Outcome) -> str:
    return outcome.error or f"answered {outcome.status_code}"
