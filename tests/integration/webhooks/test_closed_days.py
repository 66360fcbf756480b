"""Intake and metering say the same of an event's day in the end, whichever of the two comes first (contract 4)."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, select

from domain import days, ledger_days
from domain.sources import EventBatch
from metering.store import day_partitions, events, transaction
from metering.store.ledger_view import SqlLedgerView
from runtime.database.engines import Database
from tests.unit.webhooks import kit
from webhooks.closed_days import ClosedDays

DAY = timedelta(days=1)


class Desk:
    """One partition, read by intake and by metering over one database, each with a clock that is moved by hand."""

    def __init__(self, opened: Database) -> None:
        self.database = opened
        self.clock = kit.HandClock()
        self.meterings_clock = kit.HandClock()
        self.meanwhile: Callable[[], object] | None = None
        """Happens while intake waits."""
        self.waits = 0
        self.open_days = ClosedDays(opened, self.clock, SqlLedgerView(), steady=self.clock.seconds, pause=self._pause)

    def batch(self, *days_off: int) -> EventBatch:
        """Return events of so many days behind START."""
        events = [
            kit.event(at, key=f"day {off}").model_copy(update={"timestamp": kit.START + off * DAY})
            for at, off in enumerate(days_off, 1)
        ]
        return kit.batch(*events)

    def move(self, count: int) -> None:
        """Let so many days pass."""
        for clock in (self.clock, self.meterings_clock):
            clock.now += count * DAY

    def meter(self, batch: EventBatch) -> set[str]:
        """Count what finds a place, and move metering's position over all of it; return what the ledger holds."""

        def work(connection: Connection) -> None:
            day_partitions.ensure(connection, self.meterings_clock().date())
            open_ = day_partitions.open_days(connection)
            held = tuple(event for event in batch.events if open_.holds(days.day_of(event)))
            transaction.apply(connection, replace(batch, events=held), self.meterings_clock)

        self.database.write_now(work)
        key = events.USAGE_EVENT.c.idempotency_key
        return set(self.database.read_now(lambda connection: connection.execute(select(key)).scalars().all()))

    async def take(self, batch: EventBatch) -> set[str]:
        """Return what intake delivers."""
        return {event.idempotency_key for event in (await self.open_days.only(batch)).events}

    async def _pause(self, seconds: float) -> None:
        self.waits += 1
        assert self.waits < 100
        assert self.meanwhile is not None, "nothing was to be waited for"
        self.meanwhile()


@pytest.fixture
def desk(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A ledger that metering made ready at START; ten days make as good a ledger as a hundred."""
    monkeypatch.setattr(ledger_days, "LATE_DAYS", 10)
    monkeypatch.setattr(day_partitions, "_sane", lambda _connection, today: today)  # else it is the server's today
    postgres.write_now(lambda connection: day_partitions.ensure(connection, kit.START.date()))
    return Desk(postgres)


async def test_what_comes_while_metering_is_away_for_weeks_is_delivered_and_then_counted(desk: Desk) -> None:
    desk.move(20)
    batch = desk.batch(-10, 7, 8, 20, 27)
    taken = await desk.take(batch)
    assert taken == {"day 7", "day 8", "day 20", "day 27"}
    desk.move(3)
    assert desk.meter(batch) == taken


async def test_what_metering_put_aside_because_it_is_far_ahead_is_left_out(desk: Desk) -> None:
    batch = desk.batch(0, 8, 400)
    counted = desk.meter(batch)
    assert counted == {"day 0"}
    assert await desk.take(batch) == counted


async def test_what_metering_counts_a_moment_later_because_the_day_has_turned_is_delivered(desk: Desk) -> None:
    batch = desk.batch(0, 8, 400)

    def metering_comes() -> None:
        desk.meterings_clock.move(86_400)
        counted.update(desk.meter(batch))

    counted: set[str] = set()
    desk.meanwhile = metering_comes
    assert await desk.take(batch) == counted == {"day 0", "day 8"}
    assert desk.waits == 1


async def test_what_is_far_ahead_waits_for_metering_no_longer_than_until_its_day_is_near(desk: Desk) -> None:
    batch = desk.batch(0, 20)
    desk.meanwhile = lambda: desk.move(1)
    taken = await desk.take(batch)
    assert (taken, desk.waits) == ({"day 0", "day 20"}, 13)
    assert desk.meter(batch) == taken


async def test_metering_that_is_not_past_the_batch_has_not_had_its_word(desk: Desk) -> None:
    earlier, batch = desk.batch(0), desk.batch(0, 8)
    desk.meter(earlier)
    desk.meanwhile = lambda: desk.meter(replace(batch, first_offset=2)) if desk.waits == 3 else None
    assert await desk.take(batch) == {"day 0"}
    assert desk.waits == 3
