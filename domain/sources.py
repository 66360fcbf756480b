"""Where usage events are read from: an ordered source, and a stretch of it (counting 4 and 7).

Kafka's partitions are sources of their own; embedded, each spool is a topic of one partition whose offsets are its
sequences, and the outbox of corrections is one more.
"""

from dataclasses import dataclass
from typing import Protocol

from schemas.spooled import AnyEvent

SPOOL = "spool/"
"""Begins the topic of a spool; its instance follows."""

PartitionId = tuple[str, int]
"""A topic and a partition of it."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """A stretch of one source, as a reader got it."""

    topic: str
    partition: int
    lane: str
    """Names what is counted in one order: events of one counter never come over two lanes (counting 4)."""
    first_offset: int
    next_offset: int
    """One past the last event's offset; equal to `first_offset` where there is none."""
    events: tuple[AnyEvent, ...]

    @property
    def source(self) -> PartitionId:
        """Which topic's partition it is of."""
        return self.topic, self.partition


class EventSource(Protocol):
    """One ordered source of usage events that can be read again from any offset."""

    topic: str
    index: int
    """Which partition of the topic it is."""
    first_offset: int
    """Where reading starts while no position is stored."""

    @property
    def lane(self) -> str:
        """Name what is counted in one order, as its batches do."""

    async def read(self, offset: int, limit: int) -> EventBatch:
        """Return at most `limit` events from `offset` on, at once. Without any, `next_offset` may still move.

        It moves on over what holds no events, and back where the source was made anew; both are to be kept.
        """

    async def wait(self, offset: int, timeout_s: float) -> None:
        """Return when an event at or above `offset` exists, or at the timeout."""
