"""What the console's forms offer is what the management API takes."""

import json

import pytest

from control.console import forms
from schemas.limits import LimitType, ModelConfig, RateLimitUnit, UsageLimitUnit


@pytest.mark.parametrize("kind", forms.KINDS)
def test_each_kind_of_limit_that_a_form_offers_is_taken(kind: str) -> None:
    (model,) = forms.models({"slug.0": "lab/a", "kind.0.0": kind, "threshold.0.0": "5"})
    found = ModelConfig.model_validate_json(json.dumps(model))
    assert len(found.rate_limits) + len(found.usage_limits) == 1


def test_every_kind_that_the_api_takes_is_offered() -> None:
    rates = 2 * (len(LimitType) - 1) + 1
    assert len(forms.KINDS) == rates + len(LimitType) * len(UsageLimitUnit)
    assert f"rate_limits:REQUEST:{RateLimitUnit.CONCURRENT}" in forms.KINDS
    assert forms.KINDS["usage_limits:COST:MONTH"] == "cost in minor units, as cents, per month"
    assert forms.KINDS["rate_limits:INPUT_TOKEN:SECOND"] == "input tokens per second"
