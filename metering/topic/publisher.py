"""Writes decisions and daily usage to their topics, for the proxies and for finance (contract 4, counting 5).

A lane's decisions are in the partition of its number. Who owns it writes there alone, so the broker gives one offset
after another; where some are left out, another worker has written late, and compaction would keep its old figures:
`gaps` says which counters are to be told again.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date, datetime

from domain.days import read_period
from metering.core import decisions
from metering.core.decisions import Part
from metering.core.sums import Counter
from runtime.clock import Clock
from runtime.kafka.reader import LogBounds, LogReader
from runtime.kafka.writer import UNKNOWN, KafkaRecord, PlainRecord, RecordTooLargeError, Writer, cloud_event
from schemas.daily import DailyUsage
from schemas.decisions import Decision, Spread, Whole
from schemas.topics import LIMITS_DECISIONS, SPREAD_KEY, USAGE_DAILY, WHOLE_KEY

_SOURCE = "tollgate/metering"
_COUNTER = "counter/"
_SLICE = 2000
"""The most records of one write: each write has a bound of its own."""


class KafkaTotals:
    """Implements metering's `TotalsSink` on Kafka; `put_aside` hears of a record that is too large."""

    def __init__(self, writer: Writer, clock: Clock, put_aside: Callable[[str, RecordTooLargeError], None]) -> None:
        self._writer = writer
        self._clock = clock
        self._put_aside = put_aside
        self._ends: dict[int, int | None] = {}
        """By partition of the decisions: which offset follows; None: not known."""
        self.first_version = 0
        """The lowest version of the database's epoch: what a count of changes is added to (counting 9)."""
        self._gaps: dict[int, LogBounds] = {}

    def begin(self, partition: int, end: int | None) -> None:
        """Take over a partition of the decisions, which ended at `end` when it was noted."""
        self._ends[partition] = end
        self._gaps.pop(partition, None)

    def end_of(self, partition: int) -> int | None:
        """Return the offset that follows the last one written; None: not known."""
        return self._ends.get(partition)

    def gap(self, partition: int) -> LogBounds | None:
        """Return the stretch of a partition of the decisions that another has written, once; None: there is none."""
        return self._gaps.pop(partition, None)

    async def publish(self, parts: Sequence[Part], daily: Sequence[DailyUsage]) -> None:
        """Return when the broker has all of both. Raise KafkaAwayError; any of them may be there then."""
        now = self._clock()
        lanes: defaultdict[int, list[KafkaRecord]] = defaultdict(list)
        for part in parts:
            lanes[part.partition].append(_decision(decisions.decision(part, self.first_version), now))
        usages = [_usage(usage, self.first_version) for usage in daily]
        written = await asyncio.gather(
            *[self._write_to(partition, records) for partition, records in lanes.items()],
            self._write(usages),
            return_exceptions=True,  # all come to their end before an error goes on: a retry must not overtake
        )
        for result in written:
            if isinstance(result, BaseException):
                raise result

    async def publish_whole(self, partition: int, at: int) -> None:
        """Say that all of a lane below `at` was told. Raise KafkaAwayError."""
        whole = Whole(lane=partition, at=at)
        headers = cloud_event(f"tollgate.{LIMITS_DECISIONS}", f"whole/{partition}/{at}", _SOURCE, self._clock())
        await self._write_to(partition, [KafkaRecord(WHOLE_KEY, whole.model_dump_json().encode(), headers)])

    async def lanes(self) -> int:
        """Return how many lanes there are. Raise KafkaAwayError."""
        return await self._writer.partitions(LIMITS_DECISIONS)

    async def publish_spread(self, partition: int, tree: str, lanes: int) -> None:
        """Say over how many lanes the events of a tree are to lie, in its own lane. Raise KafkaAwayError."""
        key = f"{SPREAD_KEY}{tree}"
        headers = cloud_event(f"tollgate.{LIMITS_DECISIONS}", f"{key}/{lanes}", _SOURCE, self._clock())
        spread = Spread(group_id=tree, lanes=lanes)
        await self._write_to(partition, [KafkaRecord(key.encode(), spread.model_dump_json().encode(), headers)])

    async def _write_to(self, partition: int, records: Sequence[KafkaRecord]) -> None:
        for start in range(0, len(records), _SLICE):
            some = records[start : start + _SLICE]
            for offset in await _fitting(
                some, lambda fitting: self._writer.write_to(LIMITS_DECISIONS, partition, fitting), self._aside
            ):
                self._follow(partition, offset)

    def _follow(self, partition: int, offset: int) -> None:
        """Compare an acknowledged offset with the one that had to follow."""
        expected = self._ends.get(partition)
        if offset == UNKNOWN:  # the broker had it already: look at what is there when the next one is known
            return
        if expected is not None and offset != expected:
            known = self._gaps.get(partition)
            self._gaps[partition] = LogBounds(min(expected, known.begin if known else expected), offset)
        self._ends[partition] = offset + 1

    async def _write(self, records: Sequence[KafkaRecord]) -> None:
        async def write(fitting: Sequence[PlainRecord]) -> list[int]:
            await self._writer.write(USAGE_DAILY, fitting)
            return []

        for start in range(0, len(records), _SLICE):
            await _fitting(records[start : start + _SLICE], write, self._aside)

    def _aside(self, record: PlainRecord, error: RecordTooLargeError) -> None:
        self._put_aside(record[0].decode(errors="replace")[:200], error)


async def _fitting(
    records: Sequence[PlainRecord],
    write: Callable[[Sequence[PlainRecord]], Awaitable[list[int]]],
    aside: Callable[[PlainRecord, RecordTooLargeError], None],
) -> list[int]:
    """Write records; those that Kafka will never take are put aside, found by halves. Raises what `write` raises."""
    try:
        return await write(records)
    except RecordTooLargeError as error:
        if len(records) == 1:
            aside(records[0], error)
            return []
        middle = len(records) // 2
        return [*await _fitting(records[:middle], write, aside), *await _fitting(records[middle:], write, aside)]


async def told_counters(reader: LogReader, partition: int, gap: LogBounds) -> set[Counter]:
    """Return the counters that a stretch of the decisions names, as far as it is still there. Raise KafkaAwayError."""
    kept: Mapping[int, LogBounds] = await reader.bounds()
    if partition not in kept:
        return set()
    stretch = LogBounds(max(gap.begin, kept[partition].begin), min(gap.end, kept[partition].end))
    found = set()
    async for records in reader.until({partition: stretch}):
        for record in records:
            counter = counter_of((record.key or b"").decode(errors="replace"))
            if counter is not None:
                found.add(counter)
    return found


def key_of(group_id: str, model_slug: str, day: date) -> str:
    """Return the key of a counter's daily usage, which compaction goes by: ``group/slug/day``.

    A group's id holds no slash and a day none, so no two counters share a key though a slug holds one.
    """
    return f"{group_id}/{model_slug}/{day.isoformat()}"


def counter_of(key: str) -> Counter | None:
    """Return the counter that a decision's key names, a month's with its first day; None for another record's."""
    group_id, slash, rest = key.removeprefix(_COUNTER).partition("/")
    model_slug, last, period = rest.rpartition("/")
    if not (key.startswith(_COUNTER) and slash and last):
        return None
    try:
        return Counter(read_period(period)[0], group_id, model_slug)
    except ValueError:
        return None


def _decision(told: Decision, at: datetime) -> KafkaRecord:
    key = f"{_COUNTER}{told.group_id}/{told.model_slug}/{told.period}"
    headers = cloud_event(f"tollgate.{LIMITS_DECISIONS}", f"{key}/{told.lane}/{told.version}", _SOURCE, at)
    return KafkaRecord(key.encode(), told.model_dump_json().encode(), headers)


def _usage(usage: DailyUsage, first_version: int) -> KafkaRecord:
    key = key_of(usage.group_id, usage.model_slug, usage.day)
    usage = usage.model_copy(update={"version": first_version + usage.version})
    headers = cloud_event(f"tollgate.{USAGE_DAILY}", f"{key}/{usage.version}", _SOURCE, usage.updated_at)
    return KafkaRecord(key.encode(), usage.model_dump_json().encode(), headers)
