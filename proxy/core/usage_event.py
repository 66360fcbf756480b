"""Builds the usage event of a request, from what was known at its admission and what came of it (contract 4).

Never numbers an event: the spool does.
"""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from proxy.core.calls import Route
from schemas import base
from schemas.usage import Outcome, Tokens, UsageDraft, UsageSource


@dataclass(frozen=True, slots=True)
class Admission:
    """What is known of a request when it is let in."""

    idempotency_key: str
    request_id: str
    admitted_at: datetime
    route: Route
    api_key_prefix: str
    request_metadata: dict[str, str] | None
    stream: bool
    expected: Tokens
    """The estimate to bill where nothing better is ever known."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a request."""

    tokens: Tokens
    source: UsageSource
    outcome: Outcome
    latency_ms: int
    first_byte_ms: int | None


def draft(admission: Admission, result: Result) -> UsageDraft:
    """Return the event of a request that has ended."""
    route = admission.route
    return UsageDraft(
        idempotency_key=admission.idempotency_key,
        request_id=admission.request_id,
        timestamp=admission.admitted_at,
        workspace_id=route.workspace_id,
        group_id=route.group_id,
        charged_groups=route.charged_groups,
        external_entity_id=route.external_entity_id,
        api_key_prefix=admission.api_key_prefix,
        model_slug=route.slug,
        request_metadata=admission.request_metadata,
        tokens=result.tokens,
        usage_source=result.source,
        outcome=result.outcome,
        stream=admission.stream,
        latency_ms=result.latency_ms,
        first_byte_ms=result.first_byte_ms,
    )


def in_flight(admission: Admission) -> bytes:
    """Return what a slot keeps: the event as it would be if the gateway died now. Cheap, for every request pays it."""
    route = admission.route
    return msgspec.json.encode(
        {
            "idempotencyKey": admission.idempotency_key,
            "requestId": admission.request_id,
            "timestamp": base.rfc3339(admission.admitted_at),
            "workspaceId": route.workspace_id,
            "groupId": route.group_id,
            "chargedGroups": route.charged_groups,
            "externalEntityId": route.external_entity_id,
            "apiKeyPrefix": admission.api_key_prefix,
            "modelSlug": route.slug,
            "requestMetadata": admission.request_metadata,
            "tokens": {
                "inputTokens": admission.expected.input_tokens,
                "outputTokens": admission.expected.output_tokens,
            },
            "usageSource": UsageSource.ESTIMATED,
            "outcome": Outcome.GATEWAY_INTERRUPTED,
            "stream": admission.stream,
            "latencyMs": None,
            "firstByteMs": None,
        }
    )


def interrupted(kept: bytes, *, bill: bool) -> UsageDraft:
    """Return the event of a request that was in flight when the gateway died; with zero tokens unless `bill`."""
    event = UsageDraft.model_validate_json(kept)
    return event if bill else event.model_copy(update={"tokens": Tokens(input_tokens=0, output_tokens=0)})
