"""Usage events as tests compare them."""

import msgspec

from schemas.spooled import AnyEvent, SpooledEvent
from schemas.usage import UsageEvent


def as_contract(event: AnyEvent) -> UsageEvent:
    """Return an event as its contract has it, wherever it was read."""
    if isinstance(event, SpooledEvent):
        return UsageEvent.model_validate_json(msgspec.json.encode(event))
    return event
