"""One partition of the usage events' topic, as intake reads it: an `EventSource` on a shared consumer (counting 7).

Never holds more than READ_AHEAD records, and never skips any without a line in the log.
"""

import asyncio
import logging
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from domain import ledger_days, validity
from domain.sources import EventBatch
from runtime.kafka.feed import SkippedRecords
from schemas.usage import UsageEvent

READ_AHEAD = 1000
"""Records of one partition that are held beside what the consumer has fetched: a slow partition fetches no more."""

_log = logging.getLogger(__name__)


class TopicReader:
    """Reads one assigned partition of `consumer`, which reads the others of its process too.

    Offsets may have holes, and records that cannot be read are skipped here: metering puts them aside.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, place: TopicPartition, topic: str, unreadable: SkippedRecords
    ) -> None:
        self.topic = topic
        self.index: int = place.partition
        self.first_offset = 0
        """Where the log starts, as `open` found it."""
        self.waits_at: int | None = None
        """The offset that a `wait` has come to; None while none is waiting."""
        self._consumer = consumer
        self._place = place
        self._unreadable = unreadable
        self._held: list[Any] = []  # aiokafka's ConsumerRecord
        self._start = -1
        """Where the next read goes on without a seek."""
        self._end = -1
        """What the consumer gives next."""
        self._is_outside = False

    @property
    def lane(self) -> str:
        """Name what is counted in one order (`schemas.topics`)."""
        return f"{self.topic}/{self.index}"

    def hold(self) -> None:
        """Let nothing be fetched before the first read says from where. Before the consumer's first fetch."""
        self._consumer.seek(self._place, 0)
        self._consumer.pause(self._place)

    async def open(self) -> None:
        """Find where the log starts. Raise KafkaError."""
        self.first_offset = (await self._consumer.beginning_offsets([self._place]))[self._place]

    async def read(self, offset: int, limit: int) -> EventBatch:
        """Return at most `limit` events from `offset` on, of what has been fetched. Raise KafkaError."""
        if offset != self._start:
            self._go_to(offset)
        await self._fetch(0, limit)
        if self._is_outside:
            return self._batch(offset, await self._back_inside(offset), [])
        taken, self._held = self._held[:limit], self._held[limit:]
        self._start = taken[-1].offset + 1 if self._held else self._end
        return self._batch(offset, self._start, taken)

    async def wait(self, offset: int, timeout_s: float) -> None:
        """Return when an event at or above `offset` is there, as many as may be held, or at the timeout."""
        if self._end < 0:
            self._go_to(self.first_offset)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        try:
            while self._end <= offset and len(self._held) < READ_AHEAD and not self._is_outside:
                self.waits_at = self._end
                left_s = deadline - loop.time()
                if left_s <= 0:
                    return
                await self._fetch(left_s, READ_AHEAD)
        finally:
            self.waits_at = None

    def _go_to(self, offset: int) -> None:
        self._consumer.seek(self._place, offset)
        self._consumer.resume(self._place)
        self._held = []
        self._start = self._end = offset
        self._is_outside = False

    async def _fetch(self, timeout_s: float, limit: int) -> None:
        """Take what has been fetched, up to `limit` in all; wait for some where there is none."""
        if len(self._held) >= limit:
            return
        try:
            fetched = await self._consumer.getmany(
                self._place, timeout_ms=int(timeout_s * 1000), max_records=limit - len(self._held)
            )
        except OffsetOutOfRangeError:
            self._is_outside = True
            return
        self._held += fetched.get(self._place, ())
        self._end = await self._consumer.position(self._place)

    async def _back_inside(self, offset: int) -> int:
        """Return where to go on from an offset that the log does not have, and say what that means."""
        first: int = (await self._consumer.beginning_offsets([self._place]))[self._place]
        end: int = (await self._consumer.end_offsets([self._place]))[self._place]
        self._start = -1  # whatever comes next seeks
        if offset < first:
            text = (
                "%s: the topic no longer has offsets %d to %d, which were not taken in: it was kept too short, or no"
                " dispatcher ran. Their events are not delivered; `tollgate reconcile` says how many the ledger has"
            )
            _log.error(text, self.lane, offset, first - 1)
            return first
        if offset > end:
            text = (
                "%s: the topic ends at %d, but %d were taken in: it was made anew, or lost its end. It is read from its"
                " start at %d; events that are known are not delivered again"
            )
            _log.error(text, self.lane, end, offset, first)
            return first
        return offset  # a leader that was behind for a moment

    def _batch(self, first: int, after: int, records: list[Any]) -> EventBatch:
        events = tuple(event for record in records if (event := self._decoded(record)) is not None)
        return EventBatch(self.topic, self.index, self.lane, first, after, events)

    def _decoded(self, record: Any) -> UsageEvent | None:
        try:
            # Events of a closed day are left out by whoever knows the days (`webhooks.closed_days`).
            return validity.read(record.value, ledger_days.EVERY)
        except validity.UnreadableError as error:
            self._unreadable.skip(f"partition {record.partition}, offset {record.offset}", error)
            return None
