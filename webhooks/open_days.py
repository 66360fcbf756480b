"""Leaves out of intake what metering puts aside: events of a day that the ledger has no place for (spec section 4).

Never moves a position, and never drops an event without a word.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from metering.core import days, rollup
from metering.core.days import Days
from runtime.clock import Clock
from runtime.database import Database
from schemas.topics import UsageBatch

FRESH = timedelta(minutes=1)
"""How old the known days may be. They change once a day, at ends that lie days away from what is usual."""

_SAY_EVERY = timedelta(minutes=1)

_log = logging.getLogger(__name__)


class OpenDays:
    """The ledger's days, as `read` gives them, looked up again when they are no longer fresh."""

    def __init__(self, database: Database, clock: Clock, read: Callable[[Connection], Days]) -> None:
        self._database = database
        self._clock = clock
        self._read = read
        self._known = days.NONE
        self._known_at: datetime | None = None
        self._left_out = 0
        self._said_at: datetime | None = None

    async def only(self, batch: UsageBatch) -> UsageBatch:
        """Give `batch` without the events that have no place in the ledger. Raises what the database does."""
        now = self._clock()
        if self._known_at is None or now - self._known_at >= FRESH:
            known = await self._database.read(self._read)
            # Before metering's first start there are none: those that it will make are meant.
            self._known = days.missing(now.date(), known) if known == days.NONE else known
            self._known_at = now
        events = tuple(event for event in batch.events if self._known.holds(rollup.day_of(event)))
        if len(events) == len(batch.events):
            return batch
        self._say(len(batch.events) - len(events), batch, now)
        return replace(batch, events=events)

    def _say(self, count: int, batch: UsageBatch, now: datetime) -> None:
        self._left_out += count
        if self._said_at is None or now - self._said_at >= _SAY_EVERY:
            text = (
                "%d events are not delivered: the ledger takes none of their days (the last in %s/%d below offset %d)"
            )
            _log.warning(text, self._left_out, batch.topic, batch.partition, batch.next_offset)
            self._left_out, self._said_at = 0, now
