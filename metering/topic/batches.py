"""Counts what a fetch brought, and puts aside what cannot be counted, so that nothing stops its partition for good.

Never lets the position pass a record that is neither counted nor put aside (contract 4: unreadable).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import DBAPIError

from domain import ledger_days, validity
from domain.ledger_days import Days
from domain.sources import EventBatch
from metering import flow
from metering.flow import CountedBatch
from metering.store import day_partitions
from metering.topic import unreadable
from metering.topic.faust_consumer import Fetch
from metering.topic.lanes import lane_of
from runtime.clock import Clock
from runtime.database.engines import Database
from runtime.kafka.writer import Writer
from runtime.outage import Outage
from schemas.topics import USAGE_EVENTS, USAGE_UNREADABLE
from schemas.usage import UsageEvent

_DATA_REFUSED = {"22", "23", "54"}
"""PostgreSQL's classes for what is wrong with the data itself or its size, not with the statement or the server."""

log = logging.getLogger(__name__)

_Item = tuple[Any, UsageEvent]
"""A record as it came, and the event that it holds."""

_Refused = tuple[Any, str]
"""A record as it came, and why it cannot be counted."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Some of one partition's offsets, and those of their events that are to be counted."""

    partition: int
    first_offset: int
    next_offset: int
    items: Sequence[_Item]

    def batch(self) -> EventBatch:
        """Return what the ledger takes."""
        events = tuple(event for _, event in self.items)
        return EventBatch(
            USAGE_EVENTS, self.partition, lane_of(self.partition), self.first_offset, self.next_offset, events
        )

    def halves(self) -> tuple["_Stretch", "_Stretch"]:
        """Cut before the middle event."""
        middle = len(self.items) // 2
        cut = self.items[middle][0].offset
        return (
            _Stretch(self.partition, self.first_offset, cut, self.items[:middle]),
            _Stretch(self.partition, cut, self.next_offset, self.items[middle:]),
        )

    def only(self, items: Sequence[_Item]) -> "_Stretch":
        """Return the same offsets with fewer events."""
        return _Stretch(self.partition, self.first_offset, self.next_offset, items)


class Counting:
    """Counts fetches in the ledger. Outages of the database and of Kafka are waited out."""

    def __init__(
        self,
        metering: flow.Metering,
        database: Database,
        writer: Writer,
        clock: Clock,
        *,
        database_outage: Outage,
        kafka_outage: Outage,
    ) -> None:
        self._metering = metering
        self._database = database
        self._writer = writer
        self._clock = clock
        self._database_outage = database_outage
        self._kafka_outage = kafka_outage
        self._days = ledger_days.NONE
        self.put_aside = 0
        """How many records were put aside since the start."""

    async def count(self, fetch: Fetch) -> list[CountedBatch]:
        """Count every event of a fetch; return what is to be published, in order.

        Raise BeyondPositionError, PositionLostError, and what the database refuses for another reason than the data.
        """
        items, refused = self._read(fetch.records)
        if refused:  # perhaps the ledger has other days by now
            items = await self._sort_out(fetch.records)
        return await self._count(_Stretch(fetch.partition, fetch.first_offset, fetch.next_offset, items))

    def _read(self, records: Sequence[Any]) -> tuple[list[_Item], list[_Refused]]:
        items: list[_Item] = []
        refused: list[_Refused] = []
        for record in records:
            try:
                items.append((record, validity.read(record.value, self._days)))
            except validity.UnreadableError as error:
                refused.append((record, str(error)))
        return items, refused

    async def _sort_out(self, records: Sequence[Any]) -> list[_Item]:
        """Read with the ledger's days of this moment; put aside what is unreadable, give the others."""
        await self._look_up_days()
        items, refused = self._read(records)
        await self._put_aside(refused)
        return items

    async def _count(self, stretch: _Stretch) -> list[CountedBatch]:
        try:
            return [await self._database_outage.ride_out(lambda: self._metering.count(stretch.batch()))]
        except ledger_days.DayClosedError:
            open_ = await self._sort_out([record for record, _ in stretch.items])
            if len(open_) == len(stretch.items):
                raise  # the ledger and its list of days disagree
            return await self._count(stretch.only(open_))
        except DBAPIError as error:
            if not stretch.items or not is_refusal(error):
                raise
            return await self._count_apart(stretch, error)

    async def _count_apart(self, stretch: _Stretch, error: DBAPIError) -> list[CountedBatch]:
        """Find what the database refuses by halves, and put it aside."""
        if len(stretch.items) > 1:
            first, second = stretch.halves()
            return [*await self._count(first), *await self._count(second)]
        await self._put_aside([(stretch.items[0][0], f"the database refuses it: {_said(error)}")])
        return await self._count(stretch.only(()))

    async def _put_aside(self, refused: Sequence[_Refused]) -> None:
        """Return when Kafka has them: the position may pass them only then."""
        if not refused:
            return
        records = [unreadable.aside(record, reason) for record, reason in refused]
        await self._kafka_outage.ride_out(lambda: self._writer.write(USAGE_UNREADABLE, records))
        self.put_aside += len(refused)
        first, reason = refused[0]
        log.warning(
            "%d record(s) of %s, partition %d, were put aside as unreadable, the first at offset %d: %s",
            len(refused),
            USAGE_EVENTS,
            first.partition,
            first.offset,
            " ".join(reason.split()),
        )

    async def _look_up_days(self) -> None:
        today = self._clock().date()

        def work(connection: Any) -> Days:
            day_partitions.ensure(connection, today)  # else an event of today could find no place
            return day_partitions.open_days(connection)

        self._days = await self._database_outage.ride_out(lambda: self._database.write(work))


def joined(fetches: Sequence[Fetch]) -> list[Fetch]:
    """Join what follows on one another; where a fetch is missing in between, the ledger shall see that."""
    whole: list[Fetch] = []
    for fetch in fetches:
        if whole and whole[-1].next_offset == fetch.first_offset:
            records = [*whole[-1].records, *fetch.records]
            whole[-1] = whole[-1]._replace(next_offset=fetch.next_offset, records=records)
        else:
            whole.append(fetch)
    return whole


def _said(error: DBAPIError) -> str:
    """Return the driver's first line: what follows may quote the row."""
    return (str(error.orig).splitlines() or [""])[0]


def is_refusal(error: DBAPIError) -> bool:
    """Tell whether the database finds fault with a row's own values: one row alone can then stop a whole batch.

    Anything else (a table that is missing, a right) holds for every row: putting them aside would empty the topic.
    """
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state[:2] in _DATA_REFUSED
    return type(error.orig).__name__ == "DataError"  # the driver's own, before it asked the server
