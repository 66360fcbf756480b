"""How a dispatcher delivers, as the settings ask for it: the retry rule, bounds, rates, leases."""

from dataclasses import dataclass, field, replace
from typing import Self

from runtime.settings import Settings
from webhooks.core import retry
from webhooks.core.batching import Batching
from webhooks.core.fairness import AttemptLimits
from webhooks.core.health import Rule
from webhooks.core.retry import STANDARD, Policy

READ_LIMIT = 1000
"""Events of one partition in one transaction of intake."""

LEASE_MARGIN_S = 20.0
"""How much longer than an attempt a claim holds: for the settling, and for clocks of dispatchers that differ."""


@dataclass(frozen=True, slots=True)
class Policies:
    """Everything about delivering that can be chosen; the defaults are those of docs/settings.md."""

    batching: Batching = field(default_factory=lambda: Batching(100, 1.0, READ_LIMIT))
    policy: Policy = field(default_factory=Policy)
    limits: AttemptLimits = field(default_factory=AttemptLimits)
    rule: Rule = field(default_factory=Rule)
    per_s: int | None = None
    """Attempts at one receiver that begin within a second; None: no bound."""
    keep_days: int = 400
    """The ledger's days, and so those of the keys of events."""
    lease_s: float | None = None
    """How long a claim holds, which must be longer than an attempt; None: an attempt and LEASE_MARGIN_S."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Take what the settings say."""
        at_once = settings.webhook_concurrency
        return cls(
            batching=Batching(settings.webhook_batch_size, settings.webhook_linger_ms / 1000, READ_LIMIT),
            policy=replace(STANDARD, attempt_timeout_s=settings.webhook_attempt_timeout_s)
            if settings.webhook_retry == "standard"
            else Policy(
                bound_s=settings.webhook_retry_for_s,
                attempt_timeout_s=settings.webhook_attempt_timeout_s,
                backoff_first_s=settings.webhook_backoff_first_s,
                backoff_most_s=settings.webhook_backoff_most_s,
            ),
            limits=AttemptLimits(first_per_receiver=at_once, retries_per_receiver=2 * at_once),
            rule=Rule(redrives=settings.webhook_auto_redrive, redrive_per_s=settings.webhook_redrive_per_s),
            per_s=settings.webhook_rate_per_s,
            keep_days=settings.ledger_days,
        )

    @property
    def claimed_for_s(self) -> float:
        """How long a claim holds. Longer than any attempt, so that it only runs out when its dispatcher went away."""
        return self.lease_s or self.policy.attempt_timeout_s + LEASE_MARGIN_S

    @property
    def longest_wait_s(self) -> float:
        """How long a delivery that is due for no redrive, or a receiver's probe, waits at most for its next attempt."""
        return max(self.policy.bound_s, self.claimed_for_s, self.rule.probe_every_s)

    def contradictions(self) -> list[str]:
        """Say in one line each which settings contradict each other."""
        return retry.contradictions(self.policy)
