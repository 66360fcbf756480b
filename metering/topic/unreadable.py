"""The topic of the records that cannot be decoded or placed: how they lie in it, and how it is read (contract 4).

Never changes what it puts aside: key, value and headers stay as they came, and what is added stands in headers.

`tollgate_reason`, `tollgate_partition` and `tollgate_offset` say why, and where in `usage.events.v1` the record stood.
What is larger than CUT_BYTES is cut and marked by `tollgate_cut`; nothing of that size is a usage event, so it is only
looked at, never sent back.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runtime.kafka.reader import LogReader
from runtime.kafka.writer import Kafka, KafkaRecord
from schemas.topics import USAGE_UNREADABLE

CUT_BYTES = 256 * 1024
"""The most of a key, of a value, and of all headers together that is put aside."""

REASON_CHARACTERS = 300

_REASON, _PARTITION, _OFFSET, _CUT = (f"tollgate_{name}" for name in ("reason", "partition", "offset", "cut"))
_OURS = {_REASON, _PARTITION, _OFFSET, _CUT}


@dataclass(frozen=True, slots=True)
class Aside:
    """One record of the unreadable topic."""

    partition: int
    offset: int
    """Its own place in that topic, which names it."""
    at: datetime
    reason: str
    source_partition: int
    source_offset: int
    is_cut: bool
    """Whether some of it is missing, so that it cannot be sent back."""
    record: KafkaRecord
    """As it came."""

    @property
    def digest(self) -> bytes:
        """The same for every copy of the same key and value."""
        key, value = self.record.key, self.record.value or b""
        return hashlib.sha256(b"%d:%b%b" % (len(key), key, value)).digest()


def aside(found: Any, reason: str) -> KafkaRecord:
    """Return the record that puts `found` (aiokafka's ConsumerRecord) aside, for `reason`."""
    key, value = found.key or b"", found.value
    headers = [(name, body or b"") for name, body in found.headers if name not in _OURS]
    sizes = (len(key), len(value or b""), sum(len(name) + len(body) for name, body in headers))
    cut: list[tuple[str, bytes]] = []
    if max(sizes) > CUT_BYTES:
        cut = [(_CUT, b"key %d, value %d, headers %d bytes" % sizes)]
        key, value = key[:CUT_BYTES], None if value is None else value[:CUT_BYTES]
        headers = headers if sizes[2] <= CUT_BYTES else []
    ours = [
        (_REASON, " ".join(reason.split())[:REASON_CHARACTERS].encode()),
        (_PARTITION, b"%d" % found.partition),
        (_OFFSET, b"%d" % found.offset),
        *cut,
    ]
    return KafkaRecord(key, value, (*headers, *ours))


def of(found: Any) -> Aside:
    """Return what `aside` made, as it was read from the unreadable topic. What others wrote there has no reason."""
    ours = {name: body or b"" for name, body in found.headers if name in _OURS}
    headers = tuple((name, body or b"") for name, body in found.headers if name not in _OURS)
    return Aside(
        partition=found.partition,
        offset=found.offset,
        at=datetime.fromtimestamp(found.timestamp / 1000, UTC),
        reason=ours.get(_REASON, b"").decode(errors="replace"),
        source_partition=_number(ours.get(_PARTITION)),
        source_offset=_number(ours.get(_OFFSET)),
        is_cut=_CUT in ours,
        record=KafkaRecord(found.key or b"", found.value, headers),
    )


async def stored(where: Kafka) -> AsyncIterator[Sequence[Aside]]:
    """Return everything that lies aside now, some at a time, each partition in its order. Raise KafkaAwayError."""
    async with LogReader(where, USAGE_UNREADABLE) as reader:
        async for records in reader.until(await reader.bounds()):
            yield [of(record) for record in records]


async def at(where: Kafka, partition: int, offset: int) -> Aside | None:
    """Return the one at this place of the unreadable topic; None where there is none. Raise KafkaAwayError."""
    async with LogReader(where, USAGE_UNREADABLE) as reader:
        bounds = (await reader.bounds()).get(partition)
        if bounds is None or not bounds.begin <= offset < bounds.end:
            return None
        async for records in reader.until({partition: bounds._replace(begin=offset, end=offset + 1)}):
            return next((of(record) for record in records if record.offset == offset), None)
    return None


def _number(body: bytes | None) -> int:
    return int(body) if body is not None and body.isdigit() else -1
