"""Which events intake leaves out: those that metering puts aside whenever it comes to them, and no others."""

import logging
from collections.abc import Callable
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from domain import ledger_days
from domain.ledger_days import AHEAD_DAYS, LATE_DAYS, Days
from domain.sources import EventBatch
from runtime.database.engines import Database
from tests.unit.webhooks import kit
from webhooks.closed_days import FRESH_S, ClosedDays

TODAY = kit.START.date()
DAY = timedelta(days=1)
USUAL = Days(TODAY - 99 * DAY, TODAY + AHEAD_DAYS * DAY)


async def _read(work: Callable[[Any], Any]) -> Any:
    return work(None)


class Desk:
    """`OpenDays` over a ledger; `pauses` are taken in turn while metering is waited for."""

    def __init__(self, known: Days, *pauses: Callable[[], None]) -> None:
        self.clock = kit.HandClock()
        self.ledger = kit.FixedLedger(known)
        self.pauses = list(pauses)
        database = cast("Database", SimpleNamespace(read=_read))
        self.open_days = ClosedDays(database, self.clock, self.ledger, steady=self.clock.seconds, pause=self._pause)

    async def of(self, *offsets: int) -> list[int]:
        """Return which of the events of today and so many days behind it are taken in."""
        events = [
            kit.event(at).model_copy(update={"timestamp": kit.START + offset * DAY})
            for at, offset in enumerate(offsets)
        ]
        batch: EventBatch = await self.open_days.only(kit.batch(*events))
        return [(event.timestamp - kit.START).days for event in batch.events]

    async def _pause(self, seconds: float) -> None:
        self.clock.move(seconds)
        self.pauses.pop(0)()


async def test_the_ledgers_days_are_taken_and_those_before_them_are_not() -> None:
    desk = Desk(USUAL)
    assert await desk.of(-100, -99, 0, AHEAD_DAYS) == [-99, 0, AHEAD_DAYS]
    assert desk.ledger.asked == []


async def test_what_has_come_is_delivered_also_while_nobody_makes_the_ledgers_days() -> None:
    desk = Desk(Days(TODAY - 120 * DAY, TODAY - 8 * DAY))
    assert await desk.of(-121, -120, -8, -7, 0, AHEAD_DAYS) == [-120, -8, -7, 0, AHEAD_DAYS]
    assert desk.ledger.asked == [], "metering takes them whenever it comes"


async def test_days_that_were_made_by_another_clock_are_open_as_well() -> None:
    desk = Desk(Days(TODAY, TODAY + 30 * DAY))
    assert await desk.of(-1, 30) == [30]


async def test_before_the_ledger_has_days_those_that_it_will_make_are_meant() -> None:
    desk = Desk(ledger_days.NONE)
    assert await desk.of(-LATE_DAYS, 1 - LATE_DAYS, AHEAD_DAYS) == [1 - LATE_DAYS, AHEAD_DAYS]


@pytest.mark.parametrize(("counted", "taken"), [((), [0]), (("key-000001",), [0, 8])])
async def test_of_what_is_far_ahead_metering_has_the_word(
    counted: tuple[str, ...], taken: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def judge() -> None:
        desk.ledger.counted_keys = counted

    desk = Desk(USUAL, lambda: None, judge)
    desk.ledger.counted_keys = None
    caplog.set_level(logging.WARNING)
    assert await desk.of(0, 8) == taken
    assert desk.ledger.asked == [["key-000001"]] * 3
    waits = [record.getMessage() for record in caplog.records if "waits" in record.getMessage()]
    assert waits == [
        "intake of spool/one/0 waits for metering to pass offset 3: an event is of 2026-01-09, which is far ahead"
    ]


async def test_what_is_far_ahead_is_taken_once_its_day_is_near_enough() -> None:
    desk = Desk(USUAL, lambda: desk.clock.move(86_400))
    desk.ledger.counted_keys = None
    assert await desk.of(0, 8) == [0, 8]
    assert len(desk.ledger.asked) == 1


async def test_the_ledgers_days_are_looked_up_again_once_a_minute_whatever_the_clock_does() -> None:
    desk = Desk(USUAL)
    assert await desk.of(-99) == [-99]
    desk.ledger.known = Days(date(2026, 1, 1), date(2026, 1, 8))
    assert await desk.of(-99) == [-99]
    desk.clock.move(FRESH_S)
    assert await desk.of(-99) == []
