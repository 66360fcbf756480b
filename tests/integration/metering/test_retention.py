"""What metering keeps no longer goes by whole days, in small steps, and never comes back (contract 4: "Kept")."""

from datetime import date, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text

from domain import ledger_days
from metering.retention import LedgerRetention
from metering.store import day_partitions, retention, transaction
from metering.store.events import METERING_DUPLICATE, USAGE_EVENT
from metering.store.positions import METERING_POSITION
from metering.store.tables import KEY_DAILY, LIMIT_DAILY, USAGE_DAILY
from runtime.database import engines as databases
from runtime.database import statements
from runtime.database.engines import Database
from tests.support.engines import open_day
from tests.unit.metering.factories import NOON, HandClock, batch, event, key
from tests.unit.webhooks.kit import HandClock as Passing

DAY = timedelta(days=1)
TODAY = NOON.date()


class Scene:
    """Retention over a database whose clock is moved by hand, on PostgreSQL too."""

    def __init__(self, opened: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = opened
        self.clock = HandClock()
        self.passing = Passing()
        self.pauses: list[float] = []
        self._offsets: dict[str, int] = {}
        if opened.engine.dialect.name == "postgresql":
            monkeypatch.setattr(databases, "now", lambda _connection, _clock: self.clock())

    def count(self, *days: int, topic: str = "spool/A") -> None:
        """Count an event of each of these days after TODAY."""
        for day in days:
            offset = self._offsets[topic] = self._offsets.get(topic, 0) + 1
            open_day(self.opened, TODAY + day * DAY)
            one = event(offset, timestamp=NOON + day * DAY, instance=topic)
            work = batch([one], offset, topic=topic)
            self.opened.write_now(lambda connection, work=work: transaction.apply(connection, work, self.clock))  # type: ignore[misc]

    async def remove(self, day: int, *, ledger: int = 130, spools: tuple[str, ...] = ("spool/A",)) -> None:
        """Remove what has expired as of a day after TODAY, in a process that began with what it finds."""
        self.clock.now = NOON + day * DAY
        kept = LedgerRetention(
            self.opened,
            self.clock,
            ledger_days=ledger,
            spools=spools,
            steady=self.passing.seconds,
            pause=self._pause,
        )
        await kept.remove_all()

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def days(self, table: Any) -> list[int]:
        query = select(table.c.day).distinct().order_by(table.c.day)
        return [(day - TODAY).days for day in self.opened.read_now(lambda view: view.execute(query).scalars().all())]

    def rows(self, table: Any) -> int:
        query = select(func.count()).select_from(table)
        return int(self.opened.read_now(lambda view: view.execute(query).scalar_one()))


@pytest.fixture
def scene(opened: Database, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(opened, monkeypatch)


async def test_limit_totals_go_after_forty_days_and_daily_usage_after_four_hundred(scene: Scene) -> None:
    scene.count(0, 1, 40)
    await scene.remove(40)
    assert (scene.days(LIMIT_DAILY), scene.days(USAGE_DAILY)) == ([1, 40], [0, 1, 40])
    scene.count(400)
    await scene.remove(400)
    assert scene.days(USAGE_DAILY) == scene.days(KEY_DAILY) == [1, 40, 400]
    assert scene.days(LIMIT_DAILY) == [400]


async def test_daily_usage_is_never_kept_shorter_than_the_ledger(scene: Scene) -> None:
    scene.count(0, 500)
    await scene.remove(500, ledger=501)
    assert scene.days(USAGE_DAILY) == scene.days(KEY_DAILY) == [0, 500]
    await scene.remove(500, ledger=500)
    assert scene.days(USAGE_DAILY) == scene.days(KEY_DAILY) == [500]


async def test_more_than_a_step_goes_with_a_rest_after_each(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP", 2)
    scene.count(0, 1, 2, 3, 4, 90)
    await scene.remove(90, ledger=100)
    assert (scene.days(LIMIT_DAILY), len(scene.pauses)) == ([90], 2)


@pytest.mark.parametrize("place", ["postgresql"], indirect=True)
def test_a_step_removes_no_more_than_its_rows_whatever_plan_is_taken(scene: Scene) -> None:
    scene.count(0, 1, 2, 3, 4)

    def remove(connection: Connection) -> int:
        for method in ("hashagg", "hashjoin", "material", "memoize", "mergejoin", "sort"):
            connection.execute(text(f"SET LOCAL enable_{method} = off"))
        return connection.execute(statements.removal(LIMIT_DAILY, TODAY + 90 * DAY, 2)).rowcount

    assert scene.opened.write_now(remove) == 2
    assert scene.days(LIMIT_DAILY) == [2, 3, 4]


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_the_embedded_ledger_goes_by_days_and_what_is_closed_stays_closed(scene: Scene) -> None:
    scene.count(0, 1, 100)
    await scene.remove(100, ledger=100)
    assert scene.days(USAGE_EVENT) == [1, 100]
    with pytest.raises(ledger_days.DayClosedError, match="no longer kept: the ledger's first is 2025-03-02"):
        scene.count(0, topic="spool/B")
    scene.clock.now = NOON
    await scene.remove(0, ledger=100)  # a clock that went back, or a longer retention: its keys are gone all the same
    with pytest.raises(ledger_days.DayClosedError):
        scene.count(0, topic="spool/B")
    scene.count(1, topic="spool/C")
    assert scene.days(USAGE_EVENT) == [1, 100]


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_a_clock_far_ahead_closes_no_more_than_a_week_too_much(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.count(0, 6, 20)
    await scene.remove(1000, ledger=100)
    assert scene.days(USAGE_EVENT) == [0, 6, 20]
    assert scene.opened.read_now(day_partitions.open_days).first == date(2025, 3, 29) - 99 * DAY
    (doubt,) = [record for record in caplog.records if "nothing was known to happen" in record.getMessage()]
    assert "what was counted" in doubt.getMessage()


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_positions_go_with_their_spools_and_duplicates_with_their_keys(scene: Scene) -> None:
    scene.count(0, topic="spool/A")
    scene.count(0, topic="spool/gone")
    scene.count(0, topic="corrections")
    for day in (0, 100):
        values = {"instance": "a", "sequence": day, "idempotency_key": key(1, NOON + day * DAY)}
        scene.opened.write_now(lambda view, values=values: view.execute(insert(METERING_DUPLICATE).values(values)))  # type: ignore[misc]
    scene.clock.now = NOON + 250 * DAY
    scene.count(250, topic="spool/new")
    await scene.remove(250, ledger=100, spools=("spool/A", "spool/new"))

    def topics(connection: Connection) -> set[str]:
        return set(connection.execute(select(METERING_POSITION.c.topic)).scalars())

    assert scene.opened.read_now(topics) == {"spool/A", "spool/new", "corrections"}
    assert scene.rows(METERING_DUPLICATE) == 1
