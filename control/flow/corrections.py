"""Corrections: taking back or adding to what an earlier event counted (spec 4).

Never changes the event itself, nor its day: a correction is an event of its own, on the day it is made.
"""

from datetime import datetime
from typing import Protocol

from control.core.refusals import InvalidError, NotFoundError
from runtime import ids
from schemas.usage import MOST_TOKENS, Kind, Tokens, UsageDraft, UsageEvent

MAX_REASON_LENGTH = 500


class Corrections(Protocol):
    """The ledger's events and the corrections made so far."""

    def lock(self) -> None:
        """Hold every other correction off, so that two at once cannot take back the same tokens."""

    def find(self, idempotency_key: str) -> UsageEvent | None:
        """Give the event of the ledger."""

    def corrected(self, idempotency_key: str) -> Tokens:
        """Sum the corrections of one event so far; signed."""

    def put(self, draft: UsageDraft, now: datetime) -> UsageEvent:
        """Keep a correction for metering and webhooks; give it with its number."""


def correct(
    corrections: Corrections, now: datetime, *, event_key: str, input_tokens: int, output_tokens: int, reason: str
) -> UsageEvent:
    """Correct an event's counts by signed numbers. Raises InvalidError or NotFoundError.

    What an event counts after all its corrections is never negative. A correction cannot be corrected: correct the
    event again.
    """
    _check_change(input_tokens, output_tokens)
    _check_reason(reason)
    corrections.lock()
    event = corrections.find(event_key)
    if event is None:
        raise NotFoundError(f"event: the ledger has none with the key {event_key!r}", param="event", code="not_found")
    if event.kind is Kind.CORRECTION:
        raise InvalidError(f"event: is itself a correction; correct {event.corrects} again", param="event")
    before = corrections.corrected(event_key)
    _check_left("input", event.tokens.input_tokens + before.input_tokens, input_tokens)
    _check_left("output", event.tokens.output_tokens + before.output_tokens, output_tokens)
    return corrections.put(_draft(event, now, input_tokens, output_tokens, reason), now)


def _draft(event: UsageEvent, now: datetime, input_tokens: int, output_tokens: int, reason: str) -> UsageDraft:
    return UsageDraft(
        idempotency_key=ids.mint(),
        request_id=ids.request_id(),
        timestamp=now,
        workspace_id=event.workspace_id,
        group_id=event.group_id,
        charged_groups=(),
        external_entity_id=event.external_entity_id,
        api_key_prefix=event.api_key_prefix,
        model_slug=event.model_slug,
        request_metadata=event.request_metadata,
        tokens=Tokens(input_tokens=input_tokens, output_tokens=output_tokens),
        usage_source=event.usage_source,
        outcome=event.outcome,
        kind=Kind.CORRECTION,
        corrects=event.idempotency_key,
        reason=reason,
        stream=event.stream,
        latency_ms=None,
        first_byte_ms=None,
    )


def _check_change(input_tokens: int, output_tokens: int) -> None:
    if input_tokens == output_tokens == 0:
        raise InvalidError("input, output: at least one of them must not be 0", param="input")
    for name, change in (("input", input_tokens), ("output", output_tokens)):
        if abs(change) > MOST_TOKENS:
            raise InvalidError(f"{name}: -{MOST_TOKENS} to {MOST_TOKENS} is allowed", param=name)


def _check_reason(reason: str) -> None:
    if not reason.strip() or len(reason) > MAX_REASON_LENGTH or not reason.isprintable():
        raise InvalidError(f"reason: 1 to {MAX_REASON_LENGTH} printable characters are allowed", param="reason")


def _check_left(name: str, counted: int, change: int) -> None:
    if counted + change < 0:
        raise InvalidError(f"{name}: the event counts {counted} now, {change} would make it negative", param=name)
