"""Bodies of the management API about billing: the ledger's events, webhook settings, deliveries (contract 2.5)."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from schemas.base import LONGEST_OVERLAP_S, GivenMoment, InternalRecord, Message, NullMeans, Timestamp
from schemas.usage import Kind, Outcome, Tokens, UsageSource


class LedgerEvent(InternalRecord):
    """The webhook's event, with whose it is and when it was recorded. The last three fields are corrections' only."""

    idempotency_key: str
    timestamp: Timestamp
    request_id: str
    request_metadata: dict[str, str] | None
    group_id: str = Field(description="The key's own group.")
    parent_groups: tuple[str, ...] = Field(description="The groups above it, its parent first.")
    model_slug: str
    external_entity_id: str
    external_customer_id: str = Field(description="The same value as externalEntityId, under its older name.")
    api_key_prefix: str
    tokens: Tokens
    usage_source: UsageSource
    outcome: Outcome
    recorded_at: Timestamp = Field(description="When the ledger took it; what order=recorded goes by.")
    kind: Literal[Kind.CORRECTION] | None = None
    corrects: str | None = None
    reason: str | None = None


AlertShare = Annotated[int, Field(ge=1, le=100)]
"""A percent of a limit."""

MOST_ALERTS = 5


class BillingWebhook(Message):
    """Where the billing webhooks go. Without a URL, or disabled, deliveries are kept as `not_due`."""

    url: str | None = Field(description="https, public; null: nowhere.")
    enabled: bool
    usage_alerts: Annotated[tuple[AlertShare, ...], NullMeans(())] = Field(
        default=(),
        max_length=MOST_ALERTS,
        description="At which percents of a group's day or month limit an alert is delivered, once each.",
    )


class RotateSecret(Message):
    """Body of POST /v1/gateway/billing_webhook/rotate_secret."""

    overlap_seconds: Annotated[int, Field(ge=0, le=LONGEST_OVERLAP_S)] = Field(
        description="How long the secret before signs too; 0 ends it at once."
    )


class RotatedSecret(Message):
    """The new signing secret, shown this once."""

    secret: str
    previous_expires_at: Timestamp | None = Field(description="Until when the secret before signs too; null: it ended.")


class TestedWebhook(Message):
    """What came of a test delivery."""

    delivered: bool
    status_code: int | None
    error: str | None
    duration_ms: int


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    NOT_DUE = "not_due"


class DeliveryAttempt(Message):
    """One try to deliver."""

    at: Timestamp
    status_code: int | None = Field(description="null: no answer came; `error` says why.")
    error: str | None
    duration_ms: int


class Delivery(Message):
    """One signed webhook body and what became of it."""

    id: str = Field(description="The X-Baseten-Request-ID of all its attempts.")
    status: DeliveryStatus
    reason: str | None = Field(description="Why it was given up; null unless it is dead.")
    created_at: Timestamp
    event_count: int = Field(description="Usage events and corrections in it; 0: it tells of usage alerts.")
    next_attempt_at: Timestamp | None = Field(description="null unless it is pending.")
    attempts: tuple[DeliveryAttempt, ...] = Field(description="The last 50, in their order.")


class AnsweredAttempt(DeliveryAttempt):
    """One try to deliver, with what the receiver said."""

    answer: str | None = Field(description="Its body as text, at most 16 KiB; null: no answer came.")


class WholeDelivery(Delivery):
    """A delivery with what was sent and what was answered."""

    attempts: tuple[AnsweredAttempt, ...] = Field(description="The last 50, in their order.")
    body: str = Field(description="What every attempt signs and sends, byte for byte in UTF-8.")


class FoundRequest(Message):
    """What became of one request of the inference API."""

    request_id: str = Field(description="The x-request-id of its answer and of the upstream call.")
    at: Timestamp = Field(description="When it was admitted or refused.")
    outcome: str = Field(
        description="An event's outcome; without an event `refused` (no upstream was called) or `failed`."
    )
    status: int | None = Field(
        description="The HTTP status of the answer, 0 where the client left before; null for a complete request."
    )
    reason: str | None = Field(description="The error's code or type, or the outcome; null for a complete request.")
    detail: str | None = Field(description="What the answer said of it; never a prompt or an answer.")
    group_id: str | None
    api_key_prefix: str | None
    model_slug: str | None
    route: str | None
    upstream: str | None = Field(description="The host that was called, where the endpoint names it; else null.")
    latency_ms: int | None = Field(description="To the end of the upstream's answer, or to the refusal.")
    first_byte_ms: int | None = Field(description="To the upstream's first byte.")
    event: LedgerEvent | None = Field(description="Its usage event, as soon as it is counted; null: nothing is billed.")
    delivery: Delivery | None = Field(description="The billing webhook with the event, and its attempts.")


class RedriveDeliveries(Message):
    """Body of POST /v1/gateway/deliveries/redrive: which of what was given up or put aside goes back, by when."""

    from_: GivenMoment | None = Field(default=None, alias="from", description="Inclusive; without it: from the oldest.")
    to: GivenMoment | None = Field(default=None, description="Exclusive; without it: to now.")


class Redriven(Message):
    """How many deliveries are pending again."""

    count: int
