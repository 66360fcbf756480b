"""The usage topic as a reconciliation reads it: where its partitions' logs begin and end, and their records.

It joins no consumer group and writes nothing; each wait has a bound.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from runtime.kafka.reader import LogBounds, LogReader
from runtime.kafka.writer import Kafka, KafkaAwayError
from schemas.topics import USAGE_EVENTS
from tollgate.reconciliation.compare import ReconcileError

CLOCK_MARGIN = timedelta(hours=1)
"""How far a broker's clock may be off from a proxy's: records are looked for from so much before the first day on."""

Take = Callable[[Sequence[Any]], None]
"""Takes records (aiokafka's ConsumerRecord), each partition's in their order."""


class Topic:
    """The topic of the usage events. Its methods block; each connects anew."""

    def __init__(self, where: Kafka) -> None:
        self._where = where

    def logs(self) -> Mapping[int, LogBounds]:
        """Return where each partition's log begins and ends now. Raise ReconcileError."""
        with self._told():
            return asyncio.run(self._logs())

    def read(self, since: datetime, until: Mapping[int, int], take: Take) -> datetime | None:
        """Hand over every record written at or after `since`, of each partition up to its offset `until`, exclusive.

        Return before which moment records may be gone, None where none is. Raise ReconcileError.
        """
        with self._told():
            return asyncio.run(self._read(since, until, take))

    async def _logs(self) -> Mapping[int, LogBounds]:
        async with LogReader(self._where, USAGE_EVENTS) as reader:
            return await reader.bounds()

    async def _read(self, since: datetime, until: Mapping[int, int], take: Take) -> datetime | None:
        async with LogReader(self._where, USAGE_EVENTS) as reader:
            logs = await reader.bounds()
            for partition, offset in until.items():
                if logs[partition].end < offset:
                    raise ReconcileError(
                        f"metering or intake has passed offset {offset} of {USAGE_EVENTS}, partition {partition}, "
                        f"but its log ends at {logs[partition].end}: it was made anew, or has lost records"
                    )
            starts = await reader.first_since(since - CLOCK_MARGIN)
            wanted = {
                partition: LogBounds(min(starts.get(partition, (offset,))[0], offset), offset)
                for partition, offset in until.items()
            }
            async for records in reader.until(wanted):
                take(records)
            return await _gone_before(reader, logs)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except KafkaAwayError as error:
            raise ReconcileError(f"Kafka at {self._where.bootstrap}: {error}") from None


async def _gone_before(reader: LogReader, logs: Mapping[int, LogBounds]) -> datetime | None:
    """Return the newest of the first records' times of the logs that have lost some; what was before it may be gone."""
    cut_off = [partition for partition, log in logs.items() if log.begin > 0]
    if not cut_off:
        return None
    firsts = await reader.first_since(datetime.fromtimestamp(0, UTC))
    if any(partition not in firsts for partition in cut_off):  # a log that has lost all it had
        return datetime.max.replace(tzinfo=UTC)
    return max(firsts[partition].at for partition in cut_off)
