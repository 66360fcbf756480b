"""A usage event as a spool gives it back (contract 4): `schemas.usage.UsageEvent`, read at a sixth of the cost.

What a spool holds was written by a proxy of this installation, so its types are checked and its bounds are not. A
test holds it against `UsageEvent`, field by field.
"""

from datetime import datetime

import msgspec

from schemas.usage import Kind, Outcome, RouteName, UsageEvent, UsageSource


class SpooledTokens(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """See `schemas.usage.Tokens`."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0


class SpooledProducer(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """See `schemas.usage.Producer`."""

    instance: str
    sequence: int


class SpooledEvent(msgspec.Struct, rename="camel", frozen=True, kw_only=True, gc=False):
    """See `schemas.usage.UsageEvent`. The garbage collector need not look at it: nothing in it leads back to it."""

    idempotency_key: str
    request_id: str
    timestamp: datetime
    workspace_id: str
    group_id: str
    charged_groups: tuple[str, ...]
    parent_groups: tuple[str, ...] = ()
    external_entity_id: str
    api_key_prefix: str
    model_slug: str
    request_metadata: dict[str, str] | None = None
    tokens: SpooledTokens
    cost: int = 0
    usage_source: UsageSource
    outcome: Outcome
    kind: Kind = Kind.USAGE
    corrects: str | None = None
    reason: str | None = None
    route: str = RouteName.CHAT_COMPLETIONS.value
    stream: bool
    traceparent: str = ""
    latency_ms: int | None
    first_byte_ms: int | None
    producer: SpooledProducer


AnyEvent = UsageEvent | SpooledEvent
"""A usage event, wherever it was read."""

decode = msgspec.json.Decoder(SpooledEvent).decode
"""Return the event that a spool's row holds. Raise msgspec.DecodeError."""
