"""Metering in the embedded process: it follows spools, survives restarts and outages, and shows its failures."""

import asyncio
import itertools
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from domain.positions import BeyondPositionError
from domain.sources import EventBatch
from metering import app
from metering.core.decisions import Part
from metering.store import day_partitions, events, positions, transaction
from metering.thresholds import GroupThresholds
from runtime.database.engines import Database
from schemas.daily import DailyUsage
from schemas.decisions import UsedUp
from schemas.limits import LimitType
from tests.unit.metering.factories import NOON, SPOOL, HandClock, batch, change, event, group
from tests.unit.metering.fakes import ListPartition

WITHIN_S = 90

pytestmark = pytest.mark.parametrize("place", ["sqlite"], indirect=True)  # embedded there is no other


class Proxy:
    """Keeps the newest part of each group and lane, and `whole`, and raises what it was told to."""

    def __init__(self) -> None:
        self.newest: dict[tuple[str, str], Part] = {}
        self.wholes: dict[str, int] = {}
        self.daily: list[DailyUsage] = []
        self.failure: Exception | None = None

    def take(self, parts: Sequence[Part]) -> None:
        if self.failure is not None:
            raise self.failure
        self.newest |= {(part.total.counter.group_id, part.lane): part for part in parts}

    def requests(self, group_id: str = "group-a") -> int:
        return sum(part.total.requests for (group, _), part in self.newest.items() if group == group_id)


class HandPause:
    """Notes how long it was asked to pause, and lets other tasks run instead."""

    def __init__(self) -> None:
        self.asked_s: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked_s.append(seconds)
        await asyncio.sleep(0)


def embedded(
    opened: Database, proxy: Proxy, pause: HandPause | None = None, takes_s: float = 0.0
) -> app.EmbeddedMetering:
    """Return metering whose every batch takes `takes_s`."""
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "group-a", group("group-a", requests=3)))
    handover = app.Handover(proxy.take, proxy.daily.extend)
    on_whole = proxy.wholes.__setitem__
    return app.EmbeddedMetering(
        opened,
        thresholds,
        handover,
        HandClock(),
        on_whole=on_whole,
        pause=pause or HandPause(),
        steady=itertools.count(step=takes_s).__next__,
    )


@asynccontextmanager
async def following(metering: app.EmbeddedMetering, *partitions: ListPartition) -> AsyncIterator[None]:
    """Follow `partitions` until all that they hold is counted; then run the body, then stop."""
    for partition in partitions:
        partition.waited.clear()
    tasks = [asyncio.create_task(metering.follow(partition)) for partition in partitions]
    rest = asyncio.create_task(all_wait(partitions))
    try:
        done, _ = await asyncio.wait([*tasks, rest], return_when=asyncio.FIRST_COMPLETED, timeout=WITHIN_S)
        assert done, "metering did not come to rest"
        for task in done:
            await task
        yield
    finally:
        for task in (*tasks, rest):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def all_wait(partitions: Sequence[ListPartition]) -> None:
    for partition in partitions:
        await partition.waited.wait()


def rows(opened: Database) -> int:
    query = select(sqlalchemy.func.count()).select_from(events.USAGE_EVENT)
    count: int = opened.read_now(lambda connection: connection.execute(query).scalar_one())
    return count


async def test_what_lies_in_the_spools_is_counted_and_handed_over(opened: Database) -> None:
    proxy, first, second = Proxy(), ListPartition(SPOOL), ListPartition("spool-b", "spool-b")
    first.put(event(1), event(2))
    second.put(event(1, number=3, instance="proxy-b"))
    metering = embedded(opened, proxy)
    assert metering.committed(SPOOL, 0) == 0

    async with following(metering, first, second):
        assert {lane: (part.total.requests, part.at) for (_, lane), part in proxy.newest.items()} == {
            "embedded": (2, 3),
            "spool-b": (1, 2),
        }
        assert {part.used_up for part in proxy.newest.values() if part.used_up} == {
            (UsedUp(type=LimitType.REQUEST, threshold=3),)
        }, "the lane that was counted last has seen the other; where both were told after it, each has"
        assert proxy.wholes == {"embedded": 3, "spool-b": 2}
        assert (metering.committed(SPOOL, 0), metering.committed("spool-b", 0)) == (3, 2)
        assert max(usage.requests for usage in proxy.daily) == 3


async def test_what_comes_later_is_counted_when_it_comes(opened: Database) -> None:
    proxy, spool = Proxy(), ListPartition(SPOOL)
    metering = embedded(opened, proxy)
    async with following(metering, spool):
        assert proxy.newest == {}
        spool.put(event(1))
        await asyncio.wait_for(spool.waited.wait(), WITHIN_S)
        assert proxy.requests() == 1


async def test_a_restart_goes_on_at_the_position_and_knows_the_decisions(opened: Database) -> None:
    spool = ListPartition(SPOOL)
    spool.put(event(1), event(2, timestamp=NOON - timedelta(days=1)), event(3, timestamp=NOON - timedelta(days=2)))
    async with following(embedded(opened, Proxy()), spool):
        pass
    spool.reads.clear()

    proxy = Proxy()
    metering = embedded(opened, proxy)
    days = [NOON.date(), NOON.date() - timedelta(days=1)]
    told: list[Part] = []
    await metering.hand_over(days, told.extend)
    assert sorted((part.total.counter.day, part.total.requests, part.total.version) for part in told) == [
        (days[1], 1, 1),
        (days[0], 1, 1),
    ]
    async with following(metering, spool):
        assert spool.reads[0] == (4, 1000)
        assert proxy.newest == {}
        assert metering.committed(SPOOL, 0) == 4


async def test_a_crash_between_commit_and_handover_heals_after_the_restart(opened: Database) -> None:
    proxy, spool = Proxy(), ListPartition(SPOOL)
    spool.put(event(1))
    proxy.failure = RuntimeError("killed here")
    metering = embedded(opened, proxy)
    with pytest.raises(RuntimeError, match="killed here"):
        async with following(metering, spool):
            pytest.fail("the failure was not seen")
    assert metering.committed(SPOOL, 0) == 1, "what was not handed over must stay in the spool"

    restarted = embedded(opened, proxy)
    told: list[Part] = []
    await restarted.hand_over([NOON.date()], told.extend)
    assert [(part.total.requests, part.total.version) for part in told] == [(1, 1)]
    assert 2 in proxy.wholes.values(), "so the row that was counted is not added to it"
    assert rows(opened) == 1


async def test_batches_hold_at_most_a_thousand_and_those_not_full_lie_apart(opened: Database) -> None:
    proxy, spool, pause = Proxy(), ListPartition(SPOOL), HandPause()
    spool.put(*(event(number) for number in range(1, 1002)))
    async with following(embedded(opened, proxy, pause), spool):
        assert [offset for offset, _ in spool.reads] == [1, 1001, 1002]
        assert pause.asked_s == [0.02], "behind the batch that was not full"
        assert proxy.requests() == 1001


@pytest.mark.parametrize(("takes_s", "rest_s"), [(0.001, 0.02), (0.05, 0.45), (3.0, 1.0)])
async def test_the_longer_a_batch_takes_the_longer_it_rests_within_a_bound(
    opened: Database, takes_s: float, rest_s: float
) -> None:
    proxy, spool, pause = Proxy(), ListPartition(SPOOL), HandPause()
    spool.put(event(1))
    async with following(embedded(opened, proxy, pause, takes_s), spool):
        assert pause.asked_s == [pytest.approx(rest_s)]


async def test_an_outage_of_the_database_is_waited_out_and_logged_once(
    opened: Database, caplog: pytest.LogCaptureFixture
) -> None:
    proxy, spool, pause = Proxy(), ListPartition(SPOOL), HandPause()
    spool.put(event(1))
    failures = 9

    def fail(*_: Any) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise sqlite3.OperationalError("database is locked")

    sqlalchemy.event.listen(opened.engine, "do_execute", fail)
    try:
        with caplog.at_level(logging.INFO, logger="metering"):
            async with following(embedded(opened, proxy, pause), spool):
                assert proxy.requests() == 1
    finally:
        sqlalchemy.event.remove(opened.engine, "do_execute", fail)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert pause.asked_s[:9] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]


async def test_a_missing_table_ends_the_task(opened: Database) -> None:
    positions.METERING_POSITION.drop(opened.engine)
    with pytest.raises(OperationalError, match="no such table"):
        async with following(embedded(opened, Proxy()), ListPartition(SPOOL)):
            pytest.fail("the failure was not seen")


async def test_a_spool_that_lost_rows_ends_the_task(opened: Database) -> None:
    class Lossy(ListPartition):
        async def read(self, offset: int, limit: int) -> EventBatch:
            return batch([event(offset + 1)], offset + 1)

    opened.write_now(lambda connection: transaction.apply(connection, batch([event(1)]), HandClock()))
    with pytest.raises(BeyondPositionError):
        async with following(embedded(opened, Proxy()), Lossy(SPOOL)):
            pytest.fail("the failure was not seen")


async def test_events_of_closed_days_are_left_out_and_the_others_counted(
    opened: Database, caplog: pytest.LogCaptureFixture
) -> None:
    opened.write_now(lambda connection: day_partitions.close(connection, NOON.date()))
    proxy, spool = Proxy(), ListPartition(SPOOL)
    spool.put(event(1), event(2, timestamp=NOON - timedelta(days=1)), event(3))
    metering = embedded(opened, proxy)
    async with following(metering, spool):
        assert (rows(opened), proxy.requests(), metering.left_out) == (2, 2, 1)
        assert metering.committed(SPOOL, 0) == 4
    (said,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert f"its day {NOON.date() - timedelta(days=1)} is no longer kept" in said.getMessage()
    assert event(2, timestamp=NOON - timedelta(days=1)).idempotency_key in said.getMessage()
