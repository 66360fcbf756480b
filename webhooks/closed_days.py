"""Leaves out of intake what metering puts aside: events of a day that the ledger has no place for (contract 4).

Never leaves out an event that metering may still count. What is left out is logged.

Rules, by the day of an event:

- Before the ledger's first day: it is left out. Days are never made again, so metering puts it aside whenever it comes.
- Up to the days that metering would make ready today: it is delivered, also while nobody is there to make them.
- Beyond: what becomes of it depends on when metering comes to it, so metering is waited for.
"""

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from sqlalchemy import Connection

from domain import days, ledger_days
from domain.ledger_days import Days
from domain.sources import EventBatch
from runtime import loops
from runtime.clock import Clock, Steady
from runtime.database.engines import Database
from runtime.outage import Pause
from schemas.spooled import AnyEvent

FRESH_S = 60.0
"""How old the known days may be. They change once a day, at ends that lie days away from what is usual."""

_ASK_EVERY_S = 1.0
_SAY_EVERY_S = 60.0

_log = logging.getLogger(__name__)


class LedgerView(Protocol):
    """What intake asks of the ledger."""

    def days(self, connection: Connection) -> Days:
        """Return the days that it has; `ledger_days.NONE` before metering's first start."""

    def counted(self, connection: Connection, batch: EventBatch, events: Sequence[AnyEvent]) -> Collection[str] | None:
        """Return the keys of those `events` of `batch` that it holds; None until metering is past the batch."""


class ClosedDays:
    """The ledger's days, looked up again when they are no longer fresh."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        ledger: LedgerView,
        *,
        steady: Steady = time.monotonic,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ledger = ledger
        self._steady = steady
        self._pause = pause
        self._known = ledger_days.NONE
        self._known_at_s: float | None = None
        self._left_out = 0
        self._said_at_s: float | None = None

    async def only(self, batch: EventBatch) -> EventBatch:
        """Return `batch` without the events that the ledger does not take. Raises what the database does.

        Returns only once that is certain: where an event's day is far ahead, once metering has come past the batch.
        """
        waits = False
        while True:
            open_ = await self._open()
            ahead = [event for event in batch.events if days.day_of(event) > open_.last]
            if not ahead:
                return self._without(batch, open_, ())
            counted = await self._database.read(partial(self._ledger.counted, batch=batch, events=ahead))
            if counted is not None:
                return self._without(batch, open_, counted)
            if not waits:
                waits = True
                text = "intake of %s/%d waits for metering to pass offset %d: an event is of %s, which is far ahead"
                _log.warning(text, batch.topic, batch.partition, batch.next_offset, days.day_of(ahead[0]))
            loops.turned(0, rest_s=_ASK_EVERY_S, waits_for="metering, to say whether an event's day has a place")
            await self._pause(_ASK_EVERY_S)

    async def _open(self) -> Days:
        """Return the days that the ledger has, and those that metering would make ready today."""
        now_s = self._steady()
        if self._known_at_s is None or now_s - self._known_at_s >= FRESH_S:
            self._known = await self._database.read(self._ledger.days)
            self._known_at_s = now_s
        ready = ledger_days.missing(self._clock().date(), self._known)
        return ready if self._known == ledger_days.NONE else Days(self._known.first, max(self._known.last, ready.last))

    def _without(self, batch: EventBatch, open_: Days, counted: Collection[str]) -> EventBatch:
        events = tuple(
            event for event in batch.events if open_.holds(days.day_of(event)) or event.idempotency_key in counted
        )
        if len(events) == len(batch.events):
            return batch
        self._say(len(batch.events) - len(events), batch)
        return replace(batch, events=events)

    def _say(self, count: int, batch: EventBatch) -> None:
        now_s = self._steady()
        self._left_out += count
        if self._said_at_s is None or now_s - self._said_at_s >= _SAY_EVERY_S:
            text = (
                "%d events are not delivered: the ledger takes none of their days (the last in %s/%d below offset %d)"
            )
            _log.warning(text, self._left_out, batch.topic, batch.partition, batch.next_offset)
            self._left_out, self._said_at_s = 0, now_s
