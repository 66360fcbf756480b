"""The bodies of the billing webhook: usage events, and usage alerts (contract 2.5, 5).

Frozen to bytes when a delivery is created; every attempt signs and sends those bytes.
"""

from typing import Literal

from pydantic import Field

from schemas.base import InternalRecord, Timestamp
from schemas.limits import LimitType, UsageLimitUnit
from schemas.usage import Kind, Outcome, Tokens, UsageSource


class BillingEvent(InternalRecord):
    """A usage event as a lab sees it. The last three fields are there for corrections only, `kind` for tests too."""

    idempotency_key: str
    timestamp: Timestamp
    request_id: str
    request_metadata: dict[str, str] | None
    model_slug: str
    external_entity_id: str
    external_customer_id: str = Field(description="The same value as externalEntityId, under its older name.")
    api_key_prefix: str
    tokens: Tokens
    usage_source: UsageSource
    outcome: Outcome
    kind: Literal[Kind.CORRECTION, "test"] | None = Field(
        default=None, description="`test`: of a test delivery. Nothing that a developer sends sets it."
    )
    corrects: str | None = None
    reason: str | None = None


class DeliveryData(InternalRecord):
    """The events of one delivery."""

    events: tuple[BillingEvent, ...] = Field(min_length=1, max_length=100)


class DeliveryBody(InternalRecord):
    """What is POSTed to a lab."""

    type: Literal["API_BILLING_USAGE", "API_BILLING_TEST"] = Field(
        default="API_BILLING_USAGE", description="`API_BILLING_TEST`: a test delivery, which bills nothing."
    )
    data: DeliveryData


class AlertedLimit(InternalRecord):
    """The limit that an alert is of."""

    type: LimitType
    unit: UsageLimitUnit
    threshold: int


class UsageAlert(InternalRecord):
    """A group's day or month has reached a share of a limit for the first time."""

    id: str = Field(description="The same in every delivery of it: deduplicate by it.")
    group_id: str
    external_entity_id: str
    model_slug: str = Field(description="`*`: the sum over all slugs of the group.")
    limit: AlertedLimit
    share: int = Field(description="In percent of the limit.")
    used: int = Field(description="When it was seen: at least the share.")
    reset_at: Timestamp = Field(description="Midnight UTC that ends the day or the month.")


class AlertData(InternalRecord):
    """The alerts of one delivery."""

    alerts: tuple[UsageAlert, ...] = Field(min_length=1, max_length=100)


class AlertBody(InternalRecord):
    """What is POSTed to a lab that asked for usage alerts. It bills nothing."""

    type: Literal["API_USAGE_ALERT"] = "API_USAGE_ALERT"
    data: AlertData
