"""Corrections: taking back or adding to what an earlier event counted (contract 4).

Never changes the event itself, nor its day: a correction is an event of its own, on the day it is made.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Protocol

from ulid import ULID

from control.core.refusals import InvalidError, NotFoundError
from runtime import ids
from schemas.usage import MOST_TOKENS, Kind, Tokens, UsageDraft, UsageEvent

MAX_REASON_LENGTH = 500

KEY_AGE = timedelta(days=1)
"""How far a new correction's key may lie from its day: the ledger looks for an event where its key says it was made."""


class Corrections(Protocol):
    """The ledger's events and the corrections made so far."""

    def lock(self) -> None:
        """Hold every other correction off, so that two at once cannot take back the same tokens."""

    def find(self, idempotency_key: str) -> UsageEvent | None:
        """Return the event of the ledger."""

    def made(self, key: str) -> UsageEvent | None:
        """Return the correction of this key."""

    def corrected(self, idempotency_key: str) -> Tokens:
        """Sum the corrections of one event so far; signed."""

    def put(self, draft: UsageDraft, now: datetime) -> UsageEvent:
        """Keep a correction for metering and webhooks; return it with its number."""


def correct(
    corrections: Corrections,
    clock: Callable[[], datetime],
    *,
    event_key: str,
    input_tokens: int,
    output_tokens: int,
    reason: str,
    key: str | None = None,
) -> UsageEvent:
    """Correct an event's counts by signed numbers. Raise InvalidError or NotFoundError.

    What an event counts after all its corrections is never negative. A correction cannot be corrected: correct the
    event again. Where `key` is given and there is a correction of that key already, nothing is changed and that one is
    given, if it is the same. `clock` is read when all others are held off, so that no wait puts it on an earlier day.
    """
    _check_change(input_tokens, output_tokens)
    _check_reason(reason)
    corrections.lock()
    if key is not None and (known := corrections.made(_checked(key))) is not None:
        if (known.corrects, *_change(known.tokens), known.reason) != (event_key, input_tokens, output_tokens, reason):
            raise InvalidError(f"key: {key} is that of another correction, of {known.corrects}", param="key")
        return known
    now = clock()
    if key is not None:
        _check_unused(corrections, key, now)
    event = corrections.find(event_key)
    if event is None:
        raise NotFoundError(f"event: the ledger has none with the key {event_key!r}", param="event", code="not_found")
    if event.kind is Kind.CORRECTION:
        raise InvalidError(f"event: is itself a correction; correct {event.corrects} again", param="event")
    before = corrections.corrected(event_key)
    _check_left("input", event.tokens.input_tokens + before.input_tokens, input_tokens)
    _check_left("output", event.tokens.output_tokens + before.output_tokens, output_tokens)
    change = Tokens(input_tokens=input_tokens, output_tokens=output_tokens)
    return corrections.put(_draft(event, key or ids.mint(now), now, change, reason), now)


def _draft(event: UsageEvent, key: str, now: datetime, change: Tokens, reason: str) -> UsageDraft:
    return UsageDraft(
        idempotency_key=key,
        request_id=ids.uuid7(now),
        timestamp=now,
        workspace_id=event.workspace_id,
        group_id=event.group_id,
        charged_groups=(),
        parent_groups=event.parent_groups,
        external_entity_id=event.external_entity_id,
        api_key_prefix=event.api_key_prefix,
        model_slug=event.model_slug,
        request_metadata=event.request_metadata,
        tokens=change,
        usage_source=event.usage_source,
        outcome=event.outcome,
        kind=Kind.CORRECTION,
        corrects=event.idempotency_key,
        reason=reason,
        route=event.route,
        stream=event.stream,
        latency_ms=None,
        first_byte_ms=None,
    )


def _change(tokens: Tokens) -> tuple[int, int]:
    return tokens.input_tokens, tokens.output_tokens


def _checked(key: str) -> str:
    """Return `key`. Raise InvalidError where it is no ULID in its one usual form."""
    try:
        is_usual = str(ULID.from_str(key)) == key
    except ValueError:
        is_usual = False
    if not is_usual:
        raise InvalidError("key: a ULID is allowed, as an earlier try of this correction printed it", param="key")
    return key


def _check_unused(corrections: Corrections, key: str, now: datetime) -> None:
    if corrections.find(key) is not None:
        raise InvalidError(f"key: {key} is that of another event", param="key")
    if abs(ULID.from_str(key).timestamp - now.timestamp()) > KEY_AGE.total_seconds():
        raise InvalidError(f"key: no correction has {key}, and a new one's is made within a day of it", param="key")


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
