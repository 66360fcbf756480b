"""The retry rule: what becomes of a delivery after an attempt, and how long an attempt may take (contract 5).

The moment and the jitter are handed in.

Rules, over one run (a delivery's clock starts with the run's first attempt):

- 2xx is success. 5xx, 429, 408, timeouts and network failures are tried again; other statuses end it at once.
- The n-th wait is `backoff_first_s` doubled n - 1 times, at most `backoff_most_s`, plus up to `jitter_share` of it.
- 413 of a delivery of several events splits it into deliveries of one, so once; each begins a run of its own.
- `Retry-After` lengthens a wait, never shortens it.
- No attempt is planned at or after `bound_s`: where the next one would be, the delivery is given up at once.
- An attempt takes at most `attempt_timeout_s`, or what is left of the bound.
- A dispatcher or database that was away costs no delivery its last chance. An attempt of a run that had begun, and for
  which nobody was there when it was due (`core.attendance`), is the one more that is due, and has its full time. One
  that ended more than `away_after_s` later than its own time allows, which none does by itself, is followed by one more
  where the bound would end the run.
- A queue of our own is no absence. It takes time of an attempt, up to the last `least_if_delayed_s` that it was planned
  with: an attempt that was planned is made, with a chance to succeed, and ends behind the bound by no more than its
  delay and that. A first attempt loses nothing in a queue: the run's clock starts with it.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_RETRIED = frozenset({408, 429})
_OF_RECEIVER = frozenset({401, 403, 404})
"""What `STANDARD` takes for the receiver's state too: a key that was changed, a route that is not there yet."""
_TOO_LARGE = 413
_MOST_DOUBLINGS = 40
_LONGEST_RETRY_AFTER_S = 10**9  # beyond it every policy gives up; larger numbers would overflow a datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """How long and how often a delivery is tried. The defaults are those of docs/settings.md."""

    bound_s: float = 15.0
    attempt_timeout_s: float = 10.0
    backoff_first_s: float = 1.0
    backoff_most_s: float = 5.0
    jitter_share: float = 0.1
    away_after_s: float = 1.0
    shortest_attempt_s: float = 0.1
    least_if_delayed_s: float = 1.0
    """Enough to connect and be answered by a receiver that is well."""
    schedule_s: tuple[float, ...] = ()
    """The waits between attempts, in place of the doubling; with the last of them the attempts end."""

    @property
    def retried(self) -> frozenset[int]:
        """The statuses below 500 that are tried again."""
        return _RETRIED | _OF_RECEIVER if self.schedule_s else _RETRIED


_HOUR_S = 3600.0

STANDARD = Policy(
    bound_s=31 * _HOUR_S,  # the waits, each with its jitter, and the attempts
    schedule_s=(5.0, 300.0, 1800.0, 2 * _HOUR_S, 5 * _HOUR_S, 10 * _HOUR_S, 10 * _HOUR_S),
)
"""The schedule that receivers of Standard Webhooks know: eight attempts over 28 h."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One attempt's place in its run."""

    number: int
    """From 1, within the run."""
    first_attempt_at: datetime
    planned_at: datetime
    started_at: datetime
    was_away: bool = False
    """The run had begun, and nobody was there when this attempt was due."""

    def ends_at(self, policy: Policy) -> datetime:
        """Return the run's bound: no attempt is planned at or after it."""
        return self.first_attempt_at + timedelta(seconds=policy.bound_s)

    def is_one_more(self, policy: Policy) -> bool:
        """Tell whether the attempt makes up for a time when nobody was there."""
        return self.was_away or self.planned_at >= self.ends_at(policy)


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """What one attempt met: a status, or the error that kept it from getting one."""

    status_code: int | None
    error: str | None
    duration_ms: int
    retry_after: str | None = None
    """The answer's header as it came."""
    final: bool = False
    """Another attempt at the same URL cannot do better: the URL or its address is not allowed."""
    answer: str | None = None
    """What of the answer's body was read, as text."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The next attempt begins at `when`."""

    when: datetime
    counts: bool = False
    """Whether it counts toward a hold: the first attempt of a schedule so long that nothing dies for a day."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A dead letter, for this reason."""

    reason: str
    refused: bool = False
    """The receiver answered that it wants no more of this delivery (`is_refusal`), which says nothing of its state."""


@dataclass(frozen=True, slots=True)
class Release:
    """No attempt was made: the delivery waits on as if it had not been claimed."""


@dataclass(frozen=True, slots=True)
class Leave:
    """A probe failed: the delivery stays as it was."""

    refused: bool = False
    """The receiver answered, and wants no more of this delivery: it may be the delivery's own fault."""


@dataclass(frozen=True, slots=True)
class Split:
    """The body is too large for the receiver: each of its events becomes a delivery of its own."""


Decision = Delivered | RetryAt | GiveUp | Release | Leave | Split


def decide(
    result: AttemptResult, turn: Turn, now: datetime, policy: Policy, jitter: float, *, events: int = 1
) -> Decision:
    """Judge the attempt of `turn` at a delivery of `events`, which ended at `now`. `jitter` lies in [0, 1]."""
    status = result.status_code
    if _is_success(result):
        return Delivered()
    if status == _TOO_LARGE and events > 1:
        return Split()
    if (given_up := _at_once(result, turn, policy)) is not None:
        return given_up
    asked_s = retry_after_s(result.retry_after, now)
    when = now + timedelta(seconds=max(backoff_s(turn.number, policy, jitter), asked_s or 0.0))
    last = turn.ends_at(policy)
    if when >= last and _stood_still(turn, now, policy) and not turn.is_one_more(policy):
        when = now + timedelta(seconds=asked_s or 0.0)
        last = now + timedelta(seconds=policy.bound_s)
    if when < last:
        return RetryAt(when, counts=bool(policy.schedule_s) and turn.number == 1)
    bound = f"the {policy.bound_s:g} s after the first attempt"
    if asked_s is not None and now + timedelta(seconds=asked_s) >= last:
        return GiveUp(f"{_what(result)}; its Retry-After lies beyond {bound}")
    return GiveUp(f"no success within {bound}; the last: {_what(result)}")


def _at_once(result: AttemptResult, turn: Turn, policy: Policy) -> GiveUp | None:
    status = result.status_code
    if result.final or (status is not None and status < 500 and status not in policy.retried):
        return GiveUp(_what(result), refused=is_refusal(status))
    if policy.schedule_s and turn.number > len(policy.schedule_s):
        return GiveUp(f"no success in {turn.number} attempts; the last: {_what(result)}")
    return None


def decide_probe(result: AttemptResult) -> Decision:
    """Judge an attempt that shows whether a receiver is back."""
    if _is_success(result):
        return Delivered()
    return Leave(refused=is_refusal(result.status_code))


def is_refusal(status: int | None) -> bool:
    """Tell whether a status speaks of the delivery and not of the receiver's state: 4xx but 408 and 429."""
    return status is not None and 400 <= status < 500 and status not in _RETRIED


def backoff_s(attempt_number: int, policy: Policy, jitter: float) -> float:
    """Return the wait after attempt `attempt_number` (from 1): at least the plain doubling: no attempt comes early."""
    if policy.schedule_s:
        plain_s = policy.schedule_s[min(attempt_number, len(policy.schedule_s)) - 1]
    else:
        doubled = policy.backoff_first_s * 2.0 ** min(attempt_number - 1, _MOST_DOUBLINGS)
        plain_s = min(doubled, policy.backoff_most_s)
    return plain_s * (1 + policy.jitter_share * jitter)


def attempt_timeout_s(turn: Turn, policy: Policy) -> float:
    """Return how long the attempt of `turn` may take."""
    if turn.is_one_more(policy):
        return policy.attempt_timeout_s
    left_s = (turn.ends_at(policy) - turn.started_at).total_seconds()
    planned_with_s = (turn.ends_at(policy) - turn.planned_at).total_seconds()
    least_s = max(policy.shortest_attempt_s, min(policy.least_if_delayed_s, planned_with_s))
    return min(policy.attempt_timeout_s, max(left_s, least_s))


def contradictions(policy: Policy) -> list[str]:
    """Say in one line each what of `policy` cannot hold together; such a policy works, but not as its values say."""
    lines: list[str] = []
    if policy.schedule_s:
        return lines
    if policy.attempt_timeout_s > policy.bound_s:
        lines.append(
            f"webhook_attempt_timeout_s ({policy.attempt_timeout_s:g}) is above webhook_retry_for_s"
            f" ({policy.bound_s:g}): no attempt may take longer than the latter"
        )
    if policy.backoff_first_s > policy.backoff_most_s:
        lines.append(
            f"webhook_backoff_first_s ({policy.backoff_first_s:g}) is above webhook_backoff_most_s"
            f" ({policy.backoff_most_s:g}): every wait is the latter"
        )
    shortest_s = min(policy.backoff_first_s, policy.backoff_most_s)
    if shortest_s >= policy.bound_s:
        lines.append(
            f"the first wait ({shortest_s:g} s) is not below webhook_retry_for_s ({policy.bound_s:g}):"
            " no delivery is ever tried a second time"
        )
    return lines


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Read a Retry-After header (RFC 9110 section 10.2.3) as seconds from `now`; None where it says nothing usable."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]+", text):
        return float(min(int(text[:12]), _LONGEST_RETRY_AFTER_S))
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    # As numbers: a date at an end of the calendar with a zone of its own is none that a datetime can be turned to.
    zone_s = (moment.utcoffset() or timedelta(0)).total_seconds()
    wait_s = (moment.replace(tzinfo=UTC) - now).total_seconds() - zone_s
    return float(min(max(0.0, wait_s), _LONGEST_RETRY_AFTER_S))


def _stood_still(turn: Turn, now: datetime, policy: Policy) -> bool:
    allowed_s = attempt_timeout_s(turn, policy) + policy.away_after_s
    return now > turn.started_at + timedelta(seconds=allowed_s)


def _is_success(result: AttemptResult) -> bool:
    return result.status_code is not None and 200 <= result.status_code < 300


def _what(result: AttemptResult) -> str:
    return result.error or f"answered {result.status_code}"
