"""Drains spools to the topic of usage events, and says which of their rows may go (counting 1 and 3).

Says where Kafka has each row: the sums of limits go by that. Never lets a row go that is not acknowledged, and never
ends because Kafka is away or the disk is full: it waits.

An event is sent at least once: what Kafka may have taken without our hearing of it is sent again, also after a restart.
Within a partition events stand in the order of their sequences, repeats aside.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar

from proxy.core.send_order import MOST_AT_ONCE, Draining
from proxy.spool.file import SpoolFile
from proxy.spool.writer import Spool
from proxy.topic.rows import Charged, Head, Row, former, traced
from runtime import loops, outage
from runtime.kafka import writer
from runtime.kafka.writer import KafkaAwayError, PlainRecord, RecordTooLargeError
from runtime.outage import Outage
from runtime.telemetry.metrics import Telemetry
from schemas.topics import USAGE_EVENTS

GATHER_S = 0.02
"""Events of this time go together: a batch costs about as much as fifty events."""

_WRITE_WITHIN_S = 10.0
_IDLE_S = 1.0
_FIRST_PAUSE_S = 0.1
_MOST_PAUSE_S = 2.0
_LET_GO_EVERY_S = 1.0
_MOST_LET_GO = 50
"""Thousands of rows in one round: a report waits for it."""
_MOST_REMEMBERED = 20_000
"""Rows that are kept in mind until they may go; metering counts them within a second."""


class Limits(Protocol):
    """Who sums up what is spooled: `proxy.limits.days.DayCounters`."""

    def acknowledge(self, lane: int, instance: str, placed: Iterable[tuple[int, int]]) -> None:
        """Take the offsets that Kafka gave to rows: (sequence, offset), ascending."""

    def may_go(  # noqa: PLR0917 - a row's columns, in their order
        self, group_ids: Sequence[str], slug: str, day: date, instance: str, sequence: int, offset: int
    ) -> bool:
        """Say whether no sum needs a row any more, nor will after a restart."""


Ends = Callable[[], Coroutine[Any, Any, Mapping[int, int]]]
"""Says where the partitions of the usage topic end. Raise KafkaAwayError."""

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class EventWriter(Protocol):
    """Where events go: `runtime.kafka.writer.Writer`."""

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has. Raise KafkaAwayError."""

    async def write_to(
        self, topic: str, partition: int, records: Sequence[PlainRecord], within_s: float
    ) -> Sequence[int]:
        """Return each record's offset when the broker has all of them. Raise KafkaAwayError."""


class Mark(NamedTuple):
    """How far a spool is published."""

    instance: str
    acknowledged_through: int
    last_sequence: int
    file: SpoolFile | None
    """None: drained and removed."""


@dataclass(eq=False, slots=True)
class _Source:
    """One spool on its way."""

    file: SpoolFile
    is_current: bool
    draining: Draining[PlainRecord]
    head: int
    """The first sequence that was not let go."""
    heads: deque[Head] = field(default_factory=deque)
    """Rows from `head` on without a gap, as far as they are remembered."""
    let_go: tuple[int, int] = (0, 0)
    """What the file was last told: the first row to keep, and the mark."""
    form: Callable[[int, bytes], Row] | None = None
    """Makes rows; None: the number of partitions is not known yet."""
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when something was acknowledged."""

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows that were read for the first time."""
        draining, heads, placed = self.draining, self.heads, self.file.placed
        after = heads[-1][0] + 1 if heads else self.head
        placed_through = placed.through
        for sequence, day, whose, record, size_bytes in rows:
            if sequence <= placed_through and placed.offset_of(whose.partition, sequence) is not None:
                draining.add_acknowledged(sequence)  # by a former process
            else:
                draining.add(whose.partition, sequence, record, size_bytes)
            if sequence == after and len(heads) < _MOST_REMEMBERED:
                heads.append((sequence, day, whose))
                after += 1

    @property
    def is_published(self) -> bool:
        return self.draining.acknowledged_through >= self.file.end - 1

    @property
    def mark(self) -> Mark:
        return Mark(self.file.instance, self.draining.acknowledged_through, self.file.end - 1, self.file)


class SpoolPublisher:
    """Publishes this boot's spool and older files; `drained` names instances whose files are gone already."""

    def __init__(  # noqa: PLR0917 - every part by its name
        self,
        spool: Spool,
        older_files: Sequence[SpoolFile],
        drained: dict[str, int],
        writer: EventWriter,
        limits: Limits,
        ends: Ends,
        *,
        is_traced: bool = False,
    ) -> None:
        self.published = 0
        """Events acknowledged since the start."""
        self.dropped_uncounted = 0
        """Rows that went because the spool was full, before metering had counted them; they are published."""
        self.steady = asyncio.Lock()
        """While it is held no row goes, and no file."""
        self._spool = spool
        self._writer = writer
        self._limits = limits
        self._ends = ends
        self._is_traced = is_traced
        self._sources = [_source(file, is_current=False) for file in older_files]
        self._sources.append(_source(spool.file, is_current=True))
        self._drained = [Mark(instance, last, last, None) for instance, last in drained.items()]
        self._failing: set[object] = set()
        """What waits for Kafka: partitions of files, or a file that does not know its partitions."""

    @property
    def is_away(self) -> bool:
        """Whether anything waits for Kafka."""
        return bool(self._failing)

    @property
    def waiting(self) -> int:
        """How many events are not acknowledged."""
        return sum(mark.last_sequence - mark.acknowledged_through for mark in self.marks())

    def marks(self) -> list[Mark]:
        """Say how far each spool is, also those that were drained; all of one moment."""
        return [*self._drained, *[source.mark for source in self._sources]]

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show how far the spools are published."""
        telemetry.gauge(
            "tollgate_spool_unpublished_rows",
            "Spooled usage events that Kafka has not acknowledged.",
            lambda: self.waiting,
        )
        telemetry.counter("tollgate_published_events_total", "Usage events that Kafka has.", lambda: self.published)
        telemetry.counter(
            "tollgate_spool_dropped_uncounted_rows_total",
            "Published usage events dropped from a full spool before a decision counted them.",
            lambda: self.dropped_uncounted,
        )
        telemetry.gauge(
            "tollgate_kafka_away", "1 while Kafka takes no usage event from here, else 0.", lambda: self.is_away
        )

    async def run(self) -> None:
        """Publish for as long as the process runs."""
        loops.has_parts()
        async with asyncio.TaskGroup() as group:
            for source in self._sources:
                group.create_task(loops.run(f"the publisher of {source.file.topic}", self._publish(source, group)))
            group.create_task(loops.run("the removal of published usage events", self._let_go_for_ever()))

    async def drain(self, timeout_s: float) -> bool:
        """Wait, while `run` goes on, until all that is spooled by now is published; say whether it is."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for source in list(self._sources):
                    await self._until_published(source)
        self._spool.acknowledge(self._sources[-1].draining.acknowledged_through)
        return all(source.is_published for source in self._sources)

    async def leave(self, within_s: float) -> None:
        """Publish all that is spooled and let go of it, however long Kafka is away. Turns every `within_s` seconds."""
        loops.turned(rest_s=within_s, waits_for="Kafka")
        while not await self.drain(within_s):
            loops.turned(rest_s=within_s, waits_for="Kafka")
        await self.let_go_of_all()

    async def _until_published(self, source: _Source) -> None:
        while not source.is_published:
            source.moved.clear()
            await source.moved.wait()

    async def _publish(self, source: _Source, group: asyncio.TaskGroup) -> None:
        """Read, and hand to each partition what is its own; an older file comes to its end."""
        partitions = await self._partitions(source)
        draining, file = source.draining, source.file
        form = former(file.instance, partitions, file.spreads)
        form = source.form = traced(form) if self._is_traced else form
        while source.is_current or draining.read_through < file.end - 1:
            room = draining.room
            if not room:
                source.moved.clear()
                await source.moved.wait()
                continue
            limit = min(room, MOST_AT_ONCE)
            rows = await file.rows(draining.read_through + 1, limit, form)
            source.add(rows)
            loops.turned(len(rows), rest_s=_IDLE_S, waits_for="usage events")
            for partition in draining.sendable():
                group.create_task(self._send(source, partition))
            if not rows:
                await file.wait(draining.read_through + 1, _IDLE_S)
            if len(rows) < limit:
                await asyncio.sleep(GATHER_S)

    async def _send(self, source: _Source, partition: int) -> None:
        """Send what a partition has until it has no more; what Kafka does not take is tried again, alone."""
        draining = source.draining
        while records := draining.take(partition):
            write = partial(self._writer.write_to, USAGE_EVENTS, partition, records, _WRITE_WITHIN_S)
            offsets = await self._ride_out((source, partition), write)
            await self._place(source, partition, draining.under_way(partition), offsets)
            draining.acknowledge(partition)
            self.published += len(records)
            source.moved.set()

    async def _place(self, source: _Source, partition: int, sequences: Sequence[int], offsets: Sequence[int]) -> None:
        """Say where rows are; of those that Kafka had already and does not place, that they lie below its end."""
        if writer.UNKNOWN in offsets:
            end = (await self._ride_out((source, partition), self._ends))[partition]
            offsets = [end - 1] * len(sequences)
        self._limits.acknowledge(partition, source.file.instance, zip(sequences, offsets, strict=True))
        source.file.placed.note(partition, sequences[-1], offsets[-1])

    async def _partitions(self, source: _Source) -> int:
        return await self._ride_out(source, partial(self._writer.partitions, USAGE_EVENTS))

    async def _ride_out(self, what: object, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Do `work` until Kafka takes it. The log hears of the first that waits and of the last that goes on."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                result = await work()
            except (KafkaAwayError, RecordTooLargeError) as error:  # the latter: the topic's own bound was lowered
                if not self._failing:
                    log.warning("usage events stay in the spool: %s", error)
                self._failing.add(what)
                loops.turned(0, rest_s=_MOST_PAUSE_S, waits_for="Kafka")
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _MOST_PAUSE_S)
            else:
                if what in self._failing:
                    self._failing.remove(what)
                    if not self._failing:
                        log.info("usage events are published again")
                return result

    async def _let_go_for_ever(self) -> None:
        disk = Outage("the removal of published usage events", log, of="the disk", passes=outage.is_of_disk)
        await disk.repeat(_LET_GO_EVERY_S, self.let_go_of_all, did=1)

    async def let_go_of_all(self) -> None:
        """Look at every file once. Raises what one failed with, after the others had their turn."""
        failure: Exception | None = None
        async with self.steady:
            for source in list(self._sources):
                try:
                    await self._let_go(source)
                except Exception as error:
                    if not outage.is_of_disk(error):
                        raise
                    failure = error
        if failure is not None:
            raise failure

    async def _let_go(self, source: _Source) -> None:
        """Let rows go from the head of a file as far as they may, and the file when nothing is left in it."""
        heads, mark = source.heads, source.draining.acknowledged_through
        for _ in range(_MOST_LET_GO):
            if not heads and source.head <= mark and source.form is not None:
                # metering was behind, or these rows are a former process's
                rows = await source.file.rows(source.head, MOST_AT_ONCE, source.form)
                heads.extend([row[:3] for row in rows])
            gone = 0
            while heads and gone < MOST_AT_ONCE and heads[0][0] <= mark and self._may_go(source, *heads[0]):
                source.head = heads.popleft()[0] + 1
                gone += 1
            if gone < MOST_AT_ONCE:
                break
        if source.let_go == (source.head, mark):
            return
        if source.is_current:
            self._spool.trim(source.head)
            self._spool.acknowledge(mark)
        elif source.head < source.file.end:
            await source.file.let_go(source.head, mark)
        else:
            source.file.remove()
            self._sources.remove(source)
            self._drained.append(source.mark._replace(file=None))
        source.let_go = (source.head, mark)  # last: the disk may have refused, and it is tried again

    def _may_go(self, source: _Source, sequence: int, day: str, whose: Charged) -> bool:
        """Say so of a row that is acknowledged."""
        offset, instance = source.file.placed.offset_of(whose.partition, sequence), source.file.instance
        if offset is not None and self._limits.may_go(whose.groups, whose.slug, _date(day), instance, sequence, offset):
            return True
        if source.is_current and self._spool.filling:
            self.dropped_uncounted += 1
            return True
        return False


_date = lru_cache(maxsize=8)(date.fromisoformat)


def _source(file: SpoolFile, *, is_current: bool) -> _Source:
    begin = file.begin()
    return _Source(file, is_current, Draining(max(begin - 1, file.acknowledged_through)), begin)
