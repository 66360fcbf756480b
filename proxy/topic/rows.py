"""A spool's row as the publisher needs it: the record that Kafka gets, and what its retention asks."""

from collections.abc import Callable

import msgspec

from runtime.kafka import writer
from runtime.kafka.writer import PlainRecord
from schemas.topics import USAGE_EVENTS

EVENT_TYPE = f"tollgate.{USAGE_EVENTS}"
"""A usage event's `ce_type`."""


class Peek(msgspec.Struct, rename="camel", gc=False):
    """What of an event its record and its retention need; everything else passes unread."""

    idempotency_key: str
    timestamp: str
    charged_groups: tuple[str, ...]
    model_slug: str


Head = tuple[int, Peek, int]
"""Sequence, event, partition."""

Row = tuple[int, Peek, PlainRecord, int, int]
"""A row as the reading thread makes it: sequence, event, record, partition, size in bytes. Plain, as PlainRecord is."""


_decode = msgspec.json.Decoder(Peek).decode


def former(instance: str, partitions: int) -> Callable[[int, bytes], Row]:
    """Make what forms a row."""
    headers, partition_of = writer.cloud_events(EVENT_TYPE, instance), writer.partition_of

    def form(sequence: int, body: bytes) -> Row:
        event = _decode(body)
        key = event.charged_groups[-1].encode()
        record = key, body, headers(event.idempotency_key, event.timestamp)
        return sequence, event, record, partition_of(key, partitions), len(body)

    return form
