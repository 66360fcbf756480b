"""Which record of the usage events' topic is a usage event that can be counted, and so also delivered (contract 4).

Never says anything of a record's values: the reasons are for people to see.
"""

from pydantic import ValidationError

from domain import days
from domain.ledger_days import Days
from schemas.usage import LONGEST, MAX_EVENT_BYTES, MOST_GROUPS, MOST_TOKENS, UsageEvent


class UnreadableError(Exception):
    """A record is no usage event that can be counted; the message is one line and holds nothing of its values."""


def read(value: bytes | None, open_days: Days) -> UsageEvent:
    """Return the usage event that a record holds. Raise UnreadableError."""
    if value is None:
        raise UnreadableError("it has no value")
    if len(value) > MAX_EVENT_BYTES:
        raise UnreadableError(f"it has {len(value)} bytes; a usage event has {MAX_EVENT_BYTES} at most")
    try:
        event = UsageEvent.model_validate_json(value, strict=True)
        day = days.day_of(event)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UnreadableError(f"{name}: {first['msg']}" if name else first["msg"]) from None
    except OverflowError:
        raise UnreadableError("timestamp: it lies outside of the calendar") from None
    tokens = event.tokens
    counts = (tokens.input_tokens, tokens.output_tokens, tokens.cached_input_tokens)
    if max(map(abs, counts)) > MOST_TOKENS:
        raise UnreadableError(f"tokens: no event holds more than {MOST_TOKENS} of one kind")
    _check_texts(event)
    if not open_days.holds(day):
        raise UnreadableError(open_days.refusal(day))
    return event


def _check_texts(event: UsageEvent) -> None:
    """Refuse texts that a database cannot keep; one such record would stop its partition for good."""
    for name, longest in LONGEST.items():
        _check_text(name, getattr(event, name), longest)
    for name, groups in (("charged_groups", event.charged_groups), ("parent_groups", event.parent_groups)):
        if len(groups) > MOST_GROUPS:
            raise UnreadableError(f"{name}: no event has more than {MOST_GROUPS}")
        for group_id in groups:
            _check_text(name, group_id, LONGEST["group_id"])
    _check_text("producer.instance", event.producer.instance, LONGEST["idempotency_key"])


def _check_text(name: str, text: str | None, longest: int) -> None:
    if text is not None and (len(text) > longest or "\0" in text):
        raise UnreadableError(f"{name}: has at most {longest} characters, and no U+0000")
