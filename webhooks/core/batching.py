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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic.main import IncEx

from schemas.delivery import BillingEvent, DeliveryBody, DeliveryData
from schemas.usage import Kind, UsageEvent

DELIVERY_BYTES = 64 * 1024
"""Of the body of one delivery, inclusive."""

_ENVELOPE = len(b'{"type":"API_BILLING_USAGE","data":{"events":[]}}')
_CORRECTION = {"kind", "corrects", "reason"}  # its own fields


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


def decide(events: Sequence[UsageEvent], waited_s: float, batching: Batching) -> CutNow | Wait:
    """Say whether `events` (at least one; the oldest first seen `waited_s` ago) are cut now. The linger is inclusive.

    A length of time and no moments: a clock that is put right must neither end a linger early nor keep it from ending.
    """
    left_s = batching.linger_s - waited_s
    fullest = max(Counter(event.workspace_id for event in events).values())
    if fullest >= batching.delivery_size or len(events) >= batching.read_limit or left_s <= 0:
        return CutNow()
    return Wait(left_s, missing=min(batching.delivery_size - fullest, batching.read_limit - len(events)))


def cut(
    events: Sequence[UsageEvent], delivery_size: int, delivery_bytes: int = DELIVERY_BYTES
) -> list[tuple[UsageEvent, ...]]:
    """Return the deliveries of a stretch, each of one workspace. Of a key that comes twice the first event is taken."""
    by_workspace: dict[str, dict[str, UsageEvent]] = {}
    for event in events:
        by_workspace.setdefault(event.workspace_id, {}).setdefault(event.idempotency_key, event)
    return [
        part for keyed in by_workspace.values() for part in _parts(list(keyed.values()), delivery_size, delivery_bytes)
    ]


def _parts(events: Sequence[UsageEvent], most: int, most_bytes: int) -> Iterator[tuple[UsageEvent, ...]]:
    taken: list[UsageEvent] = []
    size = _ENVELOPE
    for event in events:
        more = len(freeze([event])) - _ENVELOPE + 1  # with its comma
        if taken and (len(taken) == most or size + more > most_bytes + 1):  # the first has none
            yield tuple(taken)
            taken, size = [], _ENVELOPE
        taken.append(event)
        size += more
    if taken:
        yield tuple(taken)


def freeze(events: Sequence[UsageEvent]) -> bytes:
    """Render the body that every attempt sends: compact UTF-8 JSON; a correction's own fields on corrections alone."""
    body = DeliveryBody(data=DeliveryData(events=tuple(_as_billed(event) for event in events)))
    plain: IncEx = {index: _CORRECTION for index, event in enumerate(events) if event.kind is not Kind.CORRECTION}
    return body.model_dump_json(by_alias=True, exclude={"data": {"events": plain}}).encode()


def freeze_test(event: UsageEvent) -> bytes:
    """Render the body of a test delivery: its type and its event's kind, which no developer can set, say what it is."""
    marked = _as_billed(event).model_copy(update={"kind": "test"})
    body = DeliveryBody(type="API_BILLING_TEST", data=DeliveryData(events=(marked,)))
    return body.model_dump_json(by_alias=True, exclude={"data": {"events": {0: _CORRECTION - {"kind"}}}}).encode()


def _as_billed(event: UsageEvent) -> BillingEvent:
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
