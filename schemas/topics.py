"""Names and keys of the topics that finance and our own processes read (spec section 4).

Never holds a partition count or a retention: those belong to the operator's settings.
"""

from dataclasses import dataclass

from schemas.base import Record
from schemas.config import ConfigChange
from schemas.daily import DailyUsage
from schemas.decisions import Decision
from schemas.usage import UsageEvent

USAGE_EVENTS = "usage.events.v1"
USAGE_DAILY = "usage.daily.v1"
LIMITS_DECISIONS = "limits.decisions.v1"
GATEWAY_CONFIG = "gateway.config.v1"
USAGE_UNREADABLE = "usage.events.unreadable.v1"
"""Records of USAGE_EVENTS that could not be decoded or placed, as they came; the reason is in their headers."""

VALUES: dict[str, type[Record]] = {
    USAGE_EVENTS: UsageEvent,
    USAGE_DAILY: DailyUsage,
    LIMITS_DECISIONS: Decision,
    GATEWAY_CONFIG: ConfigChange,
}
"""Topic to the contract of its values; their JSON Schemas lie in `schemas/json/`."""


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """A stretch of one partition of the usage events, as a reader got it.

    Kafka's partitions are its own; embedded, each spool is a topic of one partition whose offsets are its sequences.
    """

    topic: str
    partition: int
    lane: str
    """Names what is counted in one order: events of one counter never come over two lanes (design 3.4)."""
    first_offset: int
    next_offset: int
    """One past the last event's offset; equal to `first_offset` where there is none."""
    events: tuple[UsageEvent, ...]
