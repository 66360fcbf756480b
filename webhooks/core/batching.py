"""Cuts usage events into deliveries, says when to cut, and freezes a delivery's bytes (contract 5, counting 7).

Never reorders a workspace's events, and never renders the same events to two different texts.

Rules:

- A delivery holds 1 to `delivery_size` events of one workspace, in the order they were read, and its body at most
  `DELIVERY_BYTES`, unless one event is larger by itself: common servers refuse bodies of 100 KiB.
- A stretch is cut whole: what is left of another workspace goes with it, so that one position covers all of it.
- It is cut when a workspace fills a delivery, when the reader gave all it may at once, or when the oldest event has
  waited for the linger, whichever comes first.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from schemas.base import rfc3339
from schemas.delivery import AlertBody, AlertData, BillingEvent, DeliveryBody, DeliveryData, UsageAlert
from schemas.spooled import AnyEvent
from schemas.usage import Kind

DELIVERY_BYTES = 64 * 1024
"""Of the body of one delivery, inclusive."""

_ENVELOPE_START, _ENVELOPE_END = b'{"type":"API_BILLING_USAGE","data":{"events":[', b"]}}"
_ENVELOPE = len(_ENVELOPE_START + _ENVELOPE_END)
_CORRECTION = {"kind", "corrects", "reason"}  # its own fields


class RenderedEvent(NamedTuple):
    """An event, and its text in a delivery's body."""

    event: AnyEvent
    text: bytes


@dataclass(frozen=True, slots=True)
class Batching:
    """How deliveries are cut. A reader gives at most `read_limit` events at once."""

    delivery_size: int
    linger_s: float
    read_limit: int


@dataclass(frozen=True, slots=True)
class CutNow:
    """The stretch is to be cut as it is."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is to be cut before `left_s` seconds have passed, unless `missing` more events have come."""

    left_s: float
    missing: int


def decide(events: Sequence[AnyEvent], waited_s: float, batching: Batching) -> CutNow | Wait:
    """Say whether `events` (at least one; the oldest first seen `waited_s` ago) are cut now. The linger is inclusive.

    A length of time and no moments: a clock that is put right must neither end a linger early nor keep it from ending.
    """
    left_s = batching.linger_s - waited_s
    fullest = max(Counter(event.workspace_id for event in events).values())
    if fullest >= batching.delivery_size or len(events) >= batching.read_limit or left_s <= 0:
        return CutNow()
    return Wait(left_s, missing=min(batching.delivery_size - fullest, batching.read_limit - len(events)))


class _BilledTokens(msgspec.Struct, rename="camel", gc=False):
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int


class _Billed(msgspec.Struct, rename="camel", gc=False):
    """`schemas.delivery.BillingEvent` of a request; a test compares them."""

    idempotency_key: str
    timestamp: str
    request_id: str
    request_metadata: dict[str, str] | None
    model_slug: str
    external_entity_id: str
    external_customer_id: str
    api_key_prefix: str
    tokens: _BilledTokens
    usage_source: str
    outcome: str


class _BilledCorrection(_Billed, rename="camel", gc=False):
    kind: str
    corrects: str | None
    reason: str | None


_encode = msgspec.json.Encoder().encode


def cut(
    events: Sequence[AnyEvent], delivery_size: int, delivery_bytes: int = DELIVERY_BYTES
) -> list[tuple[RenderedEvent, ...]]:
    """Return the deliveries of a stretch, each of one workspace. Of a key that comes twice the first event is taken."""
    by_workspace: dict[str, dict[str, AnyEvent]] = {}
    for event in events:
        by_workspace.setdefault(event.workspace_id, {}).setdefault(event.idempotency_key, event)
    return [part for keyed in by_workspace.values() for part in _parts(keyed.values(), delivery_size, delivery_bytes)]


def _parts(events: Iterable[AnyEvent], most: int, most_bytes: int) -> Iterator[tuple[RenderedEvent, ...]]:
    taken: list[RenderedEvent] = []
    size = _ENVELOPE
    for event in events:
        billed = bill(event)
        more = len(billed.text) + 1  # with its comma
        if taken and (len(taken) == most or size + more > most_bytes + 1):  # the first has none
            yield tuple(taken)
            taken, size = [], _ENVELOPE
        taken.append(billed)
        size += more
    if taken:
        yield tuple(taken)


def bill(event: AnyEvent) -> RenderedEvent:
    """Render an event as a delivery's body holds it: compact UTF-8 JSON; a correction's own fields on it alone."""
    counts = event.tokens
    tokens = _BilledTokens(counts.input_tokens, counts.output_tokens, counts.cached_input_tokens)
    given = (
        event.idempotency_key,
        rfc3339(event.timestamp),
        event.request_id,
        event.request_metadata,
        event.model_slug,
        event.external_entity_id,
        event.external_entity_id,
        event.api_key_prefix,
        tokens,
        event.usage_source,
        event.outcome,
    )
    if event.kind is Kind.CORRECTION:
        return RenderedEvent(event, _encode(_BilledCorrection(*given, event.kind, event.corrects, event.reason)))
    return RenderedEvent(event, _encode(_Billed(*given)))


def freeze(events: Iterable[RenderedEvent]) -> bytes:
    """Return the body that every attempt sends."""
    return _ENVELOPE_START + b",".join([billed.text for billed in events]) + _ENVELOPE_END


def freeze_test(event: AnyEvent) -> bytes:
    """Render the body of a test delivery: its type and its event's kind, which no developer can set, say what it is."""
    marked = _as_billed(event).model_copy(update={"kind": "test"})
    body = DeliveryBody(type="API_BILLING_TEST", data=DeliveryData(events=(marked,)))
    return body.model_dump_json(by_alias=True, exclude={"data": {"events": {0: _CORRECTION - {"kind"}}}}).encode()


def freeze_alerts(alerts: Sequence[UsageAlert]) -> bytes:
    """Render the body of a delivery of usage alerts."""
    return AlertBody(data=AlertData(alerts=tuple(alerts))).model_dump_json(by_alias=True).encode()


def _as_billed(event: AnyEvent) -> BillingEvent:
    return BillingEvent(
        idempotency_key=event.idempotency_key,
        timestamp=event.timestamp,
        request_id=event.request_id,
        request_metadata=event.request_metadata,
        model_slug=event.model_slug,
        external_entity_id=event.external_entity_id,
        external_customer_id=event.external_entity_id,
        api_key_prefix=event.api_key_prefix,
        tokens=event.tokens,
        usage_source=event.usage_source,
        outcome=event.outcome,
        kind=Kind.CORRECTION if event.kind is Kind.CORRECTION else None,
        corrects=event.corrects,
        reason=event.reason,
    )
