"""Builds the usage event of a request, from what was known at its admission and what came of it (contract 4).

The bytes are made once: the slot takes the beginning with an estimate, the spool the same beginning with what was used.
What they hold is `schemas.usage.UsageDraft`, which a test compares.
"""

import re
from datetime import datetime

import msgspec

from proxy.limits.estimate import TokenCounts
from schemas import base
from schemas.usage import Outcome, RouteName, Tokens, UsageDraft, UsageSource

_encode = msgspec.json.encode
_TRACE = re.compile(rb'"stream":(?:true|false),"traceparent":"([^"]{55})"')
"""Where an event names its trace. Nothing that a client sends looks like it: texts have no bare quotes."""
_ENDS = {
    (source, outcome): f'"usageSource":"{source}","outcome":"{outcome}",'.encode("ascii")
    for source in UsageSource
    for outcome in Outcome
}


def of_route(
    *,
    workspace_id: str,
    group_id: str,
    charged_groups: tuple[str, ...],
    parent_groups: tuple[str, ...],
    external_entity_id: str,
    slug: str,
    name: RouteName,
) -> bytes:
    """Return the members that all events of a route have, to stand in the middle of one."""
    members = {
        "workspaceId": workspace_id,
        "groupId": group_id,
        "chargedGroups": charged_groups,
        "parentGroups": parent_groups,
        "externalEntityId": external_entity_id,
        "modelSlug": slug,
        "route": name,
    }
    return _encode(members)[1:-1]


def begun(
    *,
    idempotency_key: str,
    request_id: str,
    admitted_at: datetime,
    route: bytes,
    api_key_prefix: str,
    request_metadata: dict[str, str] | None,
    stream: bool,
) -> bytes:
    """Return the event's beginning: what is known of a request when it is let in. `route` is of `of_route`."""
    return (
        b'{"idempotencyKey":"%b","requestId":"%b","timestamp":"%b",%b,"apiKeyPrefix":%b,"requestMetadata":%b,"stream":%b,'
        % (
            idempotency_key.encode(),
            request_id.encode(),
            base.rfc3339(admitted_at).encode(),
            route,
            _encode(api_key_prefix),
            b"null" if request_metadata is None else _encode(request_metadata),
            b"true" if stream else b"false",
        )
    )


def of_trace(traceparent: str) -> bytes:
    """Return the member that names the event's trace, to stand behind what `begun` returns."""
    return b'"traceparent":"%b",' % traceparent.encode()


def trace_of(event: bytes) -> bytes:
    """Return the `traceparent` of an event, or of its beginning; empty: it has none."""
    found = _TRACE.search(event)
    return b"" if found is None else found[1]


def ended(  # noqa: PLR0917 - what came of it
    begun: bytes,
    tokens: TokenCounts,
    source: UsageSource,
    outcome: Outcome,
    times_ms: tuple[int | None, int | None],
    cost: int = 0,
) -> bytes:
    """Return the whole event; only its number is missing. `times_ms`: to the upstream's last and first byte."""
    latency_ms, first_byte_ms = times_ms
    return (
        b'%b"tokens":{"inputTokens":%d,"outputTokens":%d,"cachedInputTokens":%d},%b%b"latencyMs":%b,"firstByteMs":%b,"kind":"usage","corrects":null,"reason":null}'
    ) % (
        begun,
        tokens.input_tokens,
        tokens.output_tokens,
        tokens.cached_input_tokens,
        b'"cost":%d,' % cost if cost else b"",
        _ENDS[source, outcome],
        b"null" if latency_ms is None else b"%d" % latency_ms,
        b"null" if first_byte_ms is None else b"%d" % first_byte_ms,
    )


def in_flight(begun: bytes, expected: TokenCounts, source: UsageSource = UsageSource.ESTIMATED, cost: int = 0) -> bytes:
    """Return what a slot keeps: the event as it would be if the gateway died now."""
    return ended(begun, expected, source, Outcome.GATEWAY_INTERRUPTED, (None, None), cost)


def interrupted(kept: bytes, *, bill: bool) -> UsageDraft:
    """Return the event of a request that was in flight when the gateway died; with zero tokens unless `bill`."""
    event = UsageDraft.model_validate_json(kept)
    nothing = {"tokens": Tokens(input_tokens=0, output_tokens=0), "cost": 0}
    return event if bill else event.model_copy(update=nothing)
