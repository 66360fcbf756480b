"""What becomes of the settings in a dispatcher."""

from dataclasses import replace

from runtime.settings import Settings
from webhooks.core.fairness import AttemptLimits
from webhooks.core.health import Rule
from webhooks.core.retry import STANDARD, Policy
from webhooks.policies import LEASE_MARGIN_S, Policies


def test_every_setting_of_delivering_reaches_what_goes_by_it() -> None:
    policies = Policies.of(
        Settings(
            webhook_batch_size=7,
            webhook_linger_ms=250,
            webhook_retry_for_s=3600,
            webhook_attempt_timeout_s=4,
            webhook_backoff_first_s=2,
            webhook_backoff_most_s=60,
            webhook_concurrency=3,
            webhook_rate_per_s=11,
            webhook_auto_redrive=False,
            webhook_redrive_per_s=2.5,
            ledger_days=123,
        )
    )
    assert (policies.batching.delivery_size, policies.batching.linger_s) == (7, 0.25)
    assert policies.policy == Policy(bound_s=3600, attempt_timeout_s=4, backoff_first_s=2, backoff_most_s=60)
    assert policies.limits == AttemptLimits(first_per_receiver=3, retries_per_receiver=6)
    assert policies.rule == Rule(redrives=False, redrive_per_s=2.5)
    assert (policies.rule.redrive_per_s, policies.per_s, policies.keep_days) == (2.5, 11, 123)


def test_without_settings_it_is_what_the_spec_says() -> None:
    said, default = Policies.of(Settings()), Policies()
    assert (said.policy, said.limits, said.rule, said.per_s) == (Policy(), AttemptLimits(), Rule(), None)
    assert (default.policy, default.limits, default.rule) == (said.policy, said.limits, said.rule)
    assert said.rule.redrive_per_s == 10


def test_a_claim_outlasts_the_longest_attempt() -> None:
    for timeout_s in (0.5, 10, 60):
        policies = Policies.of(Settings(webhook_attempt_timeout_s=timeout_s))
        assert policies.claimed_for_s == timeout_s + LEASE_MARGIN_S
    assert Policies(lease_s=4).claimed_for_s == 4


def test_the_standard_schedule_is_one_setting() -> None:
    policies = Policies.of(Settings(webhook_retry="standard", webhook_attempt_timeout_s=7))
    assert policies.policy == replace(STANDARD, attempt_timeout_s=7)
    assert policies.contradictions() == []
