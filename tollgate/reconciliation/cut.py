"""The cut of a reconciliation: how far each producer's events are compared, and what lies before it unread.

It reads what lies on the disk, and asks no server.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from control.store import corrections
from metering.store import positions
from metering.store import transaction as metering_store
from proxy.spool import file as spool_file
from proxy.spool import slots
from schemas.spooled import AnyEvent
from tollgate.installation import Installation
from webhooks.store import deliveries as webhooks_store

_READ = 1000


@dataclass(frozen=True, slots=True)
class Source:
    """One spool, or the outbox of corrections, as it was at the cut."""

    topic: str
    instance: str
    end: int
    """The last sequence that is compared, inclusive; 0 where there was none."""
    path: Path | None
    """The spool's file; None for the outbox."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What is compared: of each instance the sequences up to its mark, inclusive; other instances not at all."""

    sources: tuple[Source, ...]
    marks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far metering and intake have come in one source: the next sequence of each."""

    source: Source
    counted: int
    taken: int

    @property
    def passed(self) -> bool:
        """Whether both have passed the cut."""
        return min(self.counted, self.taken) > self.source.end

    @property
    def comparable(self) -> bool:
        """Whether every event that intake has taken is either in the ledger or before the cut."""
        return self.taken <= max(self.counted, self.source.end + 1)


def take(place: Installation) -> Cut:
    """Take the cut at this moment. An instance whose spool is gone is compared as far as metering has counted it."""
    listed = _files(place.folder)
    spools = [source for path in listed if (source := _spool(path))]

    def rest(connection: Connection) -> Cut:
        made = corrections.last(connection)
        outbox = [Source(corrections.TOPIC, made.instance, made.sequence, None)] if made else []
        sources = (*spools, *outbox)
        ends = {source.instance: source.end for source in sources}
        return Cut(sources, {**metering_store.counted_through(connection), **ends})

    cut = place.read(rest)
    # A spool that came meanwhile has a mark and no end: what intake lacks of it would look lost.
    return cut if _files(place.folder) == listed else take(place)


def standings(connection: Connection, cut: Cut) -> list[Standing]:
    """Return how far each source is counted and taken in, as one transaction sees it."""
    return [
        Standing(
            source,
            counted=positions.position(connection, source.topic, 0) or 1,
            taken=webhooks_store.position(connection, source.topic, 0) or 1,
        )
        for source in cut.sources
    ]


def waiting(place: Installation, standing: Standing) -> Iterator[AnyEvent]:
    """Return the events before the cut that metering or intake have not passed, from the disk, in order."""
    first, end = min(standing.counted, standing.taken), standing.source.end
    if first > end:
        return
    for event in _events(place, standing.source, first):
        if event.producer.sequence > end:
            return
        if event.producer.sequence >= first:
            yield event


def under_way(place: Installation, cut: Cut) -> Iterator[str]:
    """Return the ids of requests in flight, then of those that spools hold behind the cut.

    In the order that a request takes: one that has left a slot by the time it is read is found in a spool, or, later
    still, in the ledger.
    """
    yield from in_flight(place)
    for path in _files(place.folder):
        for event in _remaining(path):
            if event.producer.sequence > cut.marks.get(event.producer.instance, 0):
                yield event.request_id


def in_flight(place: Installation) -> Iterator[str]:
    """Return the ids of requests in flight: of a server that runs, or of one that died."""
    for kept in slots.peek(place.folder / slots.FILE):
        try:
            yield msgspec.json.decode(kept, type=_InFlight).request_id
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # torn: the request it held has ended


class _InFlight(msgspec.Struct, rename="camel"):
    request_id: str


def _files(folder: Path) -> list[Path]:
    return sorted((folder / spool_file.FOLDER).glob(f"*{spool_file.SUFFIX}"))


def _spool(path: Path) -> Source | None:
    """Read a spool's end; None where it was drained and removed since it was listed."""
    try:
        file = spool_file.SpoolFile(path)
    except FileNotFoundError:
        return None
    try:
        return Source(file.topic, file.instance, file.end - 1, path)
    finally:
        file.close()


def _events(place: Installation, source: Source, first: int) -> Iterator[AnyEvent]:
    if source.path is not None:
        yield from _remaining(source.path)
        return
    while events := place.read(partial(corrections.read, offset=first, limit=_READ)):
        yield from events
        first = events[-1].producer.sequence + 1


def _remaining(path: Path) -> Iterator[AnyEvent]:
    try:
        file = spool_file.SpoolFile(path)
    except FileNotFoundError:
        return
    try:
        yield from file.remaining()
    finally:
        file.close()
