"""The ledger's days: made ahead, dropped when expired, never made again; and nobody waits long for it."""

import asyncio
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from domain import ledger_days
from domain.ledger_days import DayClosedError, Days
from metering.store import day_partitions, insert, positions, transaction
from metering.upkeep import LedgerUpkeep
from runtime import outage
from runtime.clock import SharedClock
from runtime.database.engines import Database
from tests.support import engines
from tests.unit.metering.factories import NOON, HandClock, batch, event

TODAY = NOON.date()
DAY = timedelta(days=1)


@pytest.fixture
def fresh(postgres: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A ledger without a day; ten make as good a ledger as a hundred, and are made sooner."""
    monkeypatch.setattr(ledger_days, "LATE_DAYS", 10)
    return postgres


def ensure(opened: Database, today: date = TODAY) -> int:
    return len(opened.write_now(lambda connection: day_partitions.ensure(connection, today)))


def drop(opened: Database, today: date, keep_days: int = 10) -> list[date]:
    return list(opened.write_now(lambda connection: day_partitions.drop_expired(connection, today, keep_days)))


def open_days(opened: Database) -> Days:
    return opened.read_now(day_partitions.open_days)


def count(opened: Database, *timestamps: datetime, first: int = 1) -> int:
    events = [event(first + place, timestamp=timestamp) for place, timestamp in enumerate(timestamps)]
    totals = opened.write_now(lambda connection: transaction.apply(connection, batch(events, first), HandClock()))
    return sum(usage.requests for usage in totals.daily)


def test_days_are_made_once_and_then_ahead(fresh: Database) -> None:
    assert open_days(fresh) == ledger_days.NONE
    assert ensure(fresh) == 17
    assert open_days(fresh) == Days(TODAY - 9 * DAY, TODAY + 7 * DAY)
    assert ensure(fresh) == 0
    assert ensure(fresh, TODAY + 2 * DAY) == 2
    assert ensure(fresh, TODAY - 300 * DAY) == 0, "a clock that stepped back makes nothing"


def test_an_event_lies_in_the_partition_of_its_own_day(fresh: Database) -> None:
    ensure(fresh)
    last_moment = datetime(2025, 2, 28, 23, 59, 59, 999000, UTC)
    assert count(fresh, last_moment, last_moment + timedelta(milliseconds=1)) == 2
    lying = text("SELECT tableoid::regclass::text FROM usage_event ORDER BY timestamp")
    names = fresh.read_now(lambda connection: connection.execute(lying).scalars().all())
    assert names == ["usage_event_2025_02_28", "usage_event_2025_03_01"]


@pytest.mark.parametrize("general", [False, True])
@pytest.mark.parametrize("days_off", [-10, 8])
def test_an_event_of_another_day_is_refused_and_nothing_of_its_batch_counted(
    fresh: Database, monkeypatch: pytest.MonkeyPatch, days_off: int, general: bool
) -> None:
    if general:
        monkeypatch.setattr(insert, "_insert_all", lambda *_: False)
    ensure(fresh)
    with pytest.raises(DayClosedError):
        count(fresh, NOON, NOON + days_off * DAY)
    assert fresh.read_now(lambda connection: positions.position(connection, "spool-a", 0)) is None
    assert count(fresh, NOON) == 1


def test_expired_days_go_and_never_come_again(fresh: Database) -> None:
    ensure(fresh)
    assert count(fresh, NOON) == 1
    later = TODAY + 10 * DAY
    ensure(fresh, later)
    dropped = drop(fresh, later)
    assert (dropped[0], dropped[-1], len(dropped)) == (TODAY - 9 * DAY, TODAY, 10)
    assert drop(fresh, later) == []
    assert ensure(fresh) == 0
    with pytest.raises(DayClosedError):
        count(fresh, NOON, first=2)
    assert open_days(fresh) == Days(TODAY + DAY, later + 7 * DAY)


def test_a_clock_that_is_years_ahead_drops_and_makes_nothing(fresh: Database) -> None:
    today = datetime.now(UTC).date()
    ensure(fresh, today)
    assert drop(fresh, today + 3000 * DAY) == []
    assert ensure(fresh, today + 3000 * DAY) <= 1, "midnight may have passed"


async def test_several_processes_may_make_them_at_once(fresh: Database) -> None:
    made = await asyncio.gather(
        *(fresh.write(lambda connection: day_partitions.ensure(connection, TODAY)) for _ in range(4))
    )
    assert sorted(map(len, made)) == [0, 0, 0, 17]


def test_making_days_waits_for_no_writer_and_no_reader(fresh: Database) -> None:
    ensure(fresh)

    def reading(reader: Connection) -> int:
        reader.execute(text("SELECT count(*) FROM usage_event"))
        return fresh.write_now(writing)

    def writing(writer: Connection) -> int:
        transaction.apply(writer, batch([event(1)]), HandClock())
        return ensure(fresh, TODAY + DAY)

    assert fresh.read_now(reading) == 1


def test_dropping_gives_up_soon_behind_a_long_reader(fresh: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(day_partitions, "_LOCK_WAIT", "100ms")
    ensure(fresh)
    later = TODAY + 5 * DAY

    def reading(reader: Connection) -> DBAPIError:
        reader.execute(text("SELECT count(*) FROM usage_event"))
        with pytest.raises(DBAPIError) as raised:
            drop(fresh, later)
        return raised.value

    assert outage.is_transient(fresh.read_now(reading))
    assert len(drop(fresh, later)) == 5


def test_a_server_with_room_for_too_few_locks_is_named(fresh: Database) -> None:
    def advice(keep_days: int) -> str | None:
        return fresh.read_now(lambda connection: day_partitions.advice(connection, keep_days))

    assert advice(10) is None
    said = r"max_locks_per_transaction is \d+; a ledger of 100000 days needs \d+ in postgresql.conf"
    assert re.fullmatch(said, advice(100_000) or "")


async def test_days_that_cannot_be_dropped_do_not_end_the_counting(
    fresh: Database, caplog: pytest.LogCaptureFixture
) -> None:
    ensure(fresh)
    view = f"CREATE VIEW kept AS SELECT day FROM {(TODAY - 9 * DAY).strftime('usage_event_%Y_%m_%d')}"
    fresh.write_now(lambda connection: connection.execute(text(view)))
    later = NOON + 100 * DAY
    upkeep = LedgerUpkeep(fresh, SharedClock(later), keep_days=100)
    tidying = asyncio.create_task(upkeep.run())
    async with asyncio.timeout(60):
        while "dropped later" not in caplog.text:  # noqa: ASYNC110 - it tells nobody but the log
            await asyncio.sleep(0.01)
    assert not tidying.done()
    tidying.cancel()
    await asyncio.wait({tidying})
    (said,) = [record for record in caplog.records if "dropped later" in record.message]
    assert (said.levelname, "other objects depend on it" in said.message) == ("ERROR", True)
    assert "\n" not in said.message
    assert open_days(fresh) == Days(TODAY - 9 * DAY, TODAY + 107 * DAY)

    fresh.write_now(lambda connection: connection.execute(text("DROP VIEW kept")))
    await upkeep.drop(later.date())
    assert open_days(fresh).first == TODAY + DAY


def test_on_sqlite_every_day_is_open_and_none_is_dropped(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with engines.made("sqlite", request, tmp_path).open() as opened:
        assert open_days(opened) == ledger_days.EVERY
        assert ensure(opened) == 0
        assert drop(opened, TODAY) == []
