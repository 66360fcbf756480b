"""The usage events after a restore: those that the topic holds above the database's positions are counted (counting 9).

Totals are told by metering when it takes its lanes over, so that no proxy hears of one that is half counted.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from control.store import corrections
from domain import positions
from domain.positions import Start
from metering import flow
from metering.store import positions as stored_positions
from metering.store import transaction
from metering.thresholds import GroupThresholds
from metering.topic.batches import Counting
from metering.topic.faust_consumer import Fetch
from metering.topic.lanes import lane_of
from metering.topic.publisher import KafkaTotals
from runtime import clock
from runtime.database import engines
from runtime.database.engines import Database
from runtime.kafka import outages
from runtime.kafka.reader import LogBounds, LogReader
from runtime.kafka.writer import Kafka, RecordTooLargeError, Writer
from runtime.outage import Outage
from schemas.topics import USAGE_EVENTS

log = logging.getLogger(__name__)

Shown = Callable[[int, int], None]
"""Is told how many records more were read, and how many there are."""


@dataclass(slots=True)
class Recount:
    """What came of it."""

    records: int = 0
    """How many the topic held above the positions."""
    put_aside: int = 0
    """How many of them cannot be counted."""
    corrections: int = 0
    """How many corrections of them were put back into the outbox."""
    gone: int = 0
    """How many offsets above the positions the topic no longer holds."""


async def count(where: Kafka, database: Database, shown: Shown) -> Recount:
    """Count what the topic holds above the positions, up to its present end.

    Raise KafkaAwayError, PositionLostError where metering runs, and LogShrunkError.
    """
    writer = Writer(where, "restore-done")
    try:
        async with LogReader(where, USAGE_EVENTS) as reader:
            return await _count(reader, _counting(database, writer), database, shown)
    finally:
        await writer.close()


def _counting(database: Database, writer: Writer) -> Counting:
    now = clock.present
    ledger = transaction.SqlLedger(database, partial(engines.now, clock=now))
    metering = flow.Metering(ledger, KafkaTotals(writer, now, _too_large), GroupThresholds(), now)
    waits = Outage("restore-done", log), outages.outage("restore-done", log)
    return Counting(metering, database, writer, now, database_outage=waits[0], kafka_outage=waits[1])


async def _count(reader: LogReader, counting: Counting, database: Database, shown: Shown) -> Recount:
    logs = await reader.bounds()
    starts = await database.read(lambda connection: _starts(connection, logs))
    left = {one: LogBounds(start.offset, logs[one].end) for one, start in starts.items()}
    next_offsets = {one: start.position for one, start in starts.items()}
    done = Recount(gone=sum(start.offset - start.position for start in starts.values()))
    total = sum(max(0, log.end - log.begin) for log in left.values())
    async for records in reader.until(left):
        if records:
            partition, end = records[0].partition, records[-1].offset + 1
            await counting.count(Fetch(partition, next_offsets[partition], end, records, 0))
            next_offsets[partition] = end
            done.records += len(records)
            shown(len(records), total)
    done.put_aside = counting.put_aside
    done.corrections = await database.write(corrections.take_back)
    return done


def _starts(connection: Connection, logs: Mapping[int, LogBounds]) -> dict[int, Start]:
    moved = stored_positions.every(connection)
    known = {one: row.next_offset for (topic, one), row in moved.items() if topic == USAGE_EVENTS}
    return {one: positions.start(lane_of(one), known.get(one), *bounds) for one, bounds in logs.items()}


def _too_large(_key: str, error: RecordTooLargeError) -> None:
    raise error
