"""What expires goes, in small steps, and stands in nobody's way (contract 5)."""

import threading
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from runtime import ids
from runtime.database import engines as databases
from runtime.database.engines import Database
from tests.integration.webhooks.store.test_redrive import RULE, TRIED, Desk
from tests.support.engines import Place
from tests.unit.webhooks import kit
from webhooks.core.deliveries import ClaimEnd, Queue, Share, Status
from webhooks.core.health import Rule
from webhooks.core.retry import Delivered, GiveUp
from webhooks.store import claims, deliveries, redrive, retention, tables
from webhooks.upkeep import Upkeep

DAY_S = 86_400
EXPIRED_S = 35 * DAY_S


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def count(desk: Desk, table: Any) -> int:
    query = select(func.count()).select_from(table)
    return int(desk.database.read_now(lambda connection: connection.execute(query).scalar_one()))


def databases_now(desk: Desk) -> datetime:
    """Return the moment that PostgreSQL says it is, or START."""
    return desk.database.read_now(lambda connection: databases.now(connection, kit.HandClock()))


def fill(desk: Desk) -> None:
    """Have one delivery of each kind, ended at START; and a dead one that ended a day later."""
    desk.keep("arrived")
    desk.end("arrived", decision=Delivered())
    desk.lose("dead")
    desk.keep("not-due", status=Status.NOT_DUE)
    desk.lose("later", at_s=DAY_S)


def test_deliveries_and_their_attempts_go_thirty_five_days_after_they_ended(desk: Desk) -> None:
    fill(desk)
    assert desk.write(retention.remove, "ws", kit.after(EXPIRED_S)) == 0
    assert desk.write(retention.remove, "other", kit.after(EXPIRED_S + 1)) == 0
    assert desk.write(retention.remove, "ws", kit.after(EXPIRED_S + 1)) == 3
    assert desk.row("later").status == "dead"
    assert (count(desk, tables.DELIVERY), count(desk, tables.ATTEMPT)) == (1, 1)


def test_their_keys_stay_and_go_on_to_tell_what_is_known(desk: Desk) -> None:
    fill(desk)
    desk.write(retention.remove, "ws", kit.after(EXPIRED_S + 2 * DAY_S))
    again = kit.event(1)
    desk.write(deliveries.enqueue, [kit.draft("again", again)], [kit.batch(again, topic="again")], kit.START)
    assert (count(desk, tables.DELIVERY), count(desk, tables.DELIVERY_EVENT)) == (0, 4)


def test_keys_go_by_the_day_of_their_events(desk: Desk) -> None:
    fill(desk)
    assert desk.write(retention.forget, kit.START.date()) == 0
    assert desk.write(retention.forget, kit.START.date() + timedelta(days=1), limit=3) == 3
    assert desk.write(retention.forget, kit.START.date() + timedelta(days=1), limit=3) == 1


def test_what_waits_is_never_removed_but_becomes_a_dead_letter(desk: Desk) -> None:
    desk.keep("waits")
    desk.keep("claimed", at_s=1)
    assert desk.write(retention.remove, "ws", kit.after(2 * EXPIRED_S)) == 0
    assert desk.write(retention.give_up, "ws", kit.after(EXPIRED_S + 1)) == 1
    assert (desk.row("waits").status, desk.row("waits").reason) == ("dead", retention.WAITED)
    assert desk.row("claimed").status == "pending"


def test_what_an_attempt_has_is_not_given_up_under_it(desk: Desk) -> None:
    desk.keep("one")
    now = kit.after(EXPIRED_S + 60)
    (claim,) = desk.write(claims.claim, [Share("ws", Queue.FIRST, 1)], now, timedelta(seconds=30), RULE)
    assert desk.write(retention.give_up, "ws", now) == 0
    desk.write(deliveries.finish, [ClaimEnd(claim, TRIED, Delivered())], now, RULE)
    assert desk.row("one").status == "delivered"


async def test_upkeep_removes_all_of_it_in_steps(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(25):
        desk.keep(f"delivery-{number}", status=Status.NOT_DUE)
    desk.keep("waits")
    monkeypatch.setattr(retention, "STEP", 10)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    now = kit.HandClock(kit.after(EXPIRED_S + 1))
    monkeypatch.setattr(databases, "now", lambda _connection, _clock: now())
    upkeep = Upkeep(desk.database, now, rule=Rule(), keep_days=100, longest_wait_s=30, pause=pause)
    await upkeep.remove_all()
    assert desk.row("waits").status == "dead"
    assert (count(desk, tables.DELIVERY), count(desk, tables.DELIVERY_EVENT)) == (1, 26)
    assert len(pauses) == 2
    now.now = kit.after(107 * DAY_S)
    await upkeep.remove_all()
    assert count(desk, tables.DELIVERY_EVENT) == 26
    now.now = kit.after(108 * DAY_S)
    await upkeep.remove_all()
    assert (count(desk, tables.DELIVERY), count(desk, tables.DELIVERY_EVENT)) == (0, 0)


async def test_a_clock_that_is_far_ahead_removes_nothing_and_forgets_nothing(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """On PostgreSQL its own clock says what has expired, on SQLite what is known and the time since."""
    known_at = databases_now(desk)
    at_s = (known_at - kit.START).total_seconds()
    desk.lose("dead", at_s=at_s)
    desk.keep("waits", at_s=at_s)
    today = {"day": known_at.date()}
    desk.database.write_now(lambda connection: connection.execute(update(tables.DELIVERY_EVENT).values(today)))
    clock, passing = kit.HandClock(known_at), kit.HandClock()
    upkeep = Upkeep(desk.database, clock, rule=Rule(), keep_days=100, longest_wait_s=30, steady=passing.seconds)
    clock.move(365 * DAY_S)
    for name in ("next", "last"):  # what comes meanwhile has the wrong clock's time
        await upkeep.remove_all()
        desk.keep(name, at_s=at_s + 365 * DAY_S)
    assert desk.row("waits").status == "pending"
    assert desk.row("dead").status == "dead"
    kept = select(func.count()).where(tables.DELIVERY_EVENT.c.day == known_at.date())
    assert desk.database.read_now(lambda connection: connection.execute(kept).scalar_one()) >= 2
    doubts = [record for record in caplog.records if "nothing was known to happen" in record.getMessage()]
    assert len(doubts) == (1 if desk.database.engine.dialect.name == "sqlite" else 0)


async def test_on_sqlite_what_expires_while_the_process_runs_goes_in_its_time(place: Place) -> None:
    if place.engine != "sqlite":  # its own clock says so, and nobody can set that
        return
    with place.open() as opened:
        desk = Desk(opened)
        fill(desk)
        clock = kit.HandClock()
        upkeep = Upkeep(opened, clock, rule=Rule(), keep_days=100, longest_wait_s=30, steady=clock.seconds)
        await upkeep.remove_all()
        clock.move(EXPIRED_S + 1)
        await upkeep.remove_all()
        assert count(desk, tables.DELIVERY) == 1
        clock.move(73 * DAY_S)
        await upkeep.remove_all()
        assert (count(desk, tables.DELIVERY), count(desk, tables.DELIVERY_EVENT)) == (0, 0)


async def test_keys_alone_say_what_is_known_where_their_deliveries_are_gone(place: Place) -> None:
    if place.engine != "sqlite":
        return
    with place.open() as opened:
        desk = Desk(opened)
        fill(desk)
        desk.write(retention.remove, "ws", kit.after(EXPIRED_S + 2 * DAY_S))
        clock = kit.HandClock(kit.after(365 * DAY_S))
        await Upkeep(opened, clock, rule=Rule(), keep_days=100, longest_wait_s=30, steady=clock.seconds).remove_all()
        assert count(desk, tables.DELIVERY_EVENT) == 4


async def test_positions_go_with_their_spools_once_those_are_as_old_as_the_keys(place: Place) -> None:
    if place.engine != "sqlite":
        return  # spools are read there alone
    with place.open() as opened:
        desk = Desk(opened)
        fill(desk)
        made = {name: f"spool/{ids.mint(kit.after(at_s))}" for name, at_s in (("old", 0), ("kept", 0), ("new", DAY_S))}
        for topic in made.values():
            desk.write(deliveries.enqueue, [], [kit.batch(kit.event(1), topic=topic)], kit.START)
        desk.keep("newest", at_s=107 * DAY_S)
        clock = kit.HandClock(kit.after(107 * DAY_S + 1))
        spools = [made["kept"]]
        await Upkeep(
            opened, clock, rule=Rule(), keep_days=100, longest_wait_s=30, spools=spools, steady=clock.seconds
        ).remove_all()
        query = select(tables.WEBHOOK_POSITION.c.topic).where(tables.WEBHOOK_POSITION.c.topic.startswith("spool/"))
        left = opened.read_now(lambda connection: set(connection.execute(query).scalars()))
        assert left & set(made.values()) == {made["kept"], made["new"]}


async def test_upkeep_redrives_for_receivers_that_are_back(desk: Desk) -> None:
    for number in range(5):
        desk.lose(f"lost-{number}")
    upkeep = Upkeep(desk.database, kit.HandClock(kit.after(99)), rule=Rule(), keep_days=100, longest_wait_s=30)
    assert not await upkeep.redrive_some()
    (probe,) = desk.write(claims.claim, [Share("ws", Queue.PROBE, 1)], kit.after(30), timedelta(seconds=30), RULE)
    desk.write(deliveries.finish, [ClaimEnd(probe, TRIED, Delivered())], kit.after(30), RULE)
    assert await upkeep.redrive_some()
    assert len(desk.due()) == 4


def test_removal_locks_neither_intake_nor_dispatch_out(place: Place) -> None:
    """On PostgreSQL the transactions overlap; on SQLite there is one writer, and the step is what it waits for."""
    if place.engine == "sqlite":
        assert retention.STEP <= 100
        return
    with place.open() as opened:
        desk = Desk(opened)
        fill(desk)
        desk.keep("pending", at_s=2 * DAY_S)
        with opened.engine.connect() as connection, connection.begin():
            now = kit.after(EXPIRED_S + 2)
            assert retention.remove(connection, "ws", now) == 3
            assert retention.forget(connection, kit.START.date() + timedelta(days=1)) == 5

            def work() -> None:
                desk.keep("new", at_s=EXPIRED_S)
                desk.end("pending", "new", decision=GiveUp("gone"), at_s=EXPIRED_S)

            beside = threading.Thread(target=work, daemon=True)
            beside.start()
            beside.join(10)
            assert not beside.is_alive()
        assert desk.row("new").status == "dead"


def test_removal_waits_for_nobody_who_works_on_what_has_expired(place: Place) -> None:
    if place.engine == "sqlite":  # one writer: nobody else can be at work
        return
    with place.open() as opened:
        desk = Desk(opened)
        fill(desk)
        now = kit.after(EXPIRED_S + 2)
        with opened.engine.connect() as connection, connection.begin():
            assert redrive.redeliver(connection, "ws", "dead", now)
            known = select(tables.DELIVERY_EVENT).limit(1).with_for_update()
            connection.execute(known)
            removed: list[int] = []

            def work() -> None:
                removed.append(desk.write(retention.remove, "ws", now))
                removed.append(desk.write(retention.forget, kit.START.date() + timedelta(days=1)))

            beside = threading.Thread(target=work, daemon=True)
            beside.start()
            beside.join(10)
            assert not beside.is_alive()
        assert removed == [2, 3]
        assert desk.row("dead").status == "pending"
