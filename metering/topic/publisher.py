"""Writes decisions and daily usage to their topics, for the proxies and for finance (contract 4, counting 5).

Never writes two versions of one counter side by side: whoever calls hands over each counter once.
"""

import asyncio
from collections.abc import Sequence
from datetime import date, datetime

from runtime.clock import Clock
from runtime.kafka.writer import Record, Writer, cloud_event
from schemas.daily import DailyUsage
from schemas.decisions import Decision
from schemas.topics import LIMITS_DECISIONS, USAGE_DAILY

_SOURCE = "tollgate/metering"
_SLICE = 2000
"""The most records of one write: each write has a bound of its own."""


class KafkaTotals:
    """Implements metering's `Publisher` on Kafka."""

    def __init__(self, writer: Writer, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock

    async def publish(self, decisions: Sequence[Decision], daily: Sequence[DailyUsage]) -> None:
        """Return when the broker has all of both. Raise KafkaAwayError; any of them may be there then."""
        now = self._clock()
        written = await asyncio.gather(
            self._write(LIMITS_DECISIONS, [_record(LIMITS_DECISIONS, decision, now) for decision in decisions]),
            self._write(USAGE_DAILY, [_record(USAGE_DAILY, usage, usage.updated_at) for usage in daily]),
            return_exceptions=True,  # both come to their end before an error goes on: a retry must not overtake
        )
        for result in written:
            if isinstance(result, BaseException):
                raise result

    async def _write(self, topic: str, records: Sequence[Record]) -> None:
        for start in range(0, len(records), _SLICE):
            await self._writer.write(topic, records[start : start + _SLICE])


def key_of(group_id: str, model_slug: str, day: date) -> str:
    """Return the key of a counter in both topics, which compaction goes by: ``group/slug/day``.

    A group's id holds no slash and a day none, so no two counters share a key though a slug holds one.
    """
    return f"{group_id}/{model_slug}/{day.isoformat()}"


def _record(topic: str, told: Decision | DailyUsage, at: datetime) -> Record:
    key = key_of(told.group_id, told.model_slug, told.day)
    headers = cloud_event(f"tollgate.{topic}", f"{key}/{told.version}", _SOURCE, at)
    return Record(key.encode(), told.model_dump_json().encode(), headers)
