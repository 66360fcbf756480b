"""Receivers that are held, paces, closed days and settings, with the whole dispatcher at work (contract 5)."""

import asyncio
from datetime import timedelta
from functools import partial

import pytest

from domain import ledger_days
from domain.ledger_days import Days
from runtime import clock
from runtime.settings import Settings
from tests.integration.webhooks import scene as scenes
from tests.integration.webhooks.scene import LivePartition, dispatching, serving, status
from tests.support.engines import Place
from tests.unit.webhooks import kit
from webhooks.app import Dispatcher
from webhooks.core.health import Rule
from webhooks.store import redrive


async def test_a_receiver_that_keeps_failing_is_probed_and_gets_all_of_it_once_it_is_back(place: Place) -> None:
    now = kit.HandClock()
    failing = serving(*[status(301)] * 5, status(500))
    async with failing as receiver, dispatching(place, now=now, batch_size=1) as scene:
        scene.set_webhook(receiver.url)
        await scene.partition.put(*(kit.event(number) for number in range(1, 6)))
        await scene.until_statuses(*["dead"] * 5)
        await scene.partition.put(kit.event(6))
        await scene.until_statuses(*["dead"] * 5, "pending")
        now.move(0.1)
        await scene.partition.put(*(kit.event(number) for number in range(7, 26)))
        await scene.until(lambda: len(scene.statuses()) == 25)
        for probes in range(3):
            await scene.until_at_rest()
            assert [one.keys for one in receiver.received[5:]] == [["key-000006"]] * probes, "one every 30 s"
            now.move(Rule().probe_every_s)
            await scene.until(lambda probes=probes: len(receiver.received) == 6 + probes)  # type: ignore[misc]
        assert scene.statuses().count("pending") == 20
        receiver.answers = [status(200)]

        def all_have_arrived() -> bool:
            now.move(0.1)  # redriven ones come one after the other
            return scene.statuses() == ["delivered"] * 25

        now.move(Rule().probe_every_s)
        await scene.until(all_have_arrived)
        by_id: dict[str, set[bytes]] = {}
        for one in receiver.received:
            by_id.setdefault(one.headers["x-baseten-request-id"], set()).add(one.body)
        assert len(by_id) == 25
        assert all(len(bodies) == 1 for bodies in by_id.values())


async def test_the_hold_outlives_its_dispatcher(place: Place) -> None:
    rule = Rule(probe_every_s=60)
    partition = LivePartition()
    async with serving(status(301)) as receiver:
        async with dispatching(place, rule=rule, batch_size=1, partition=partition) as scene:
            scene.set_webhook(receiver.url)
            await partition.put(*(kit.event(number) for number in range(1, 6)))
            await scene.until_statuses(*["dead"] * 5)
        async with dispatching(place, rule=rule, batch_size=1, partition=partition) as scene:
            scene.set_webhook(receiver.url)
            scene.set_webhook(receiver.url, "other")
            await partition.put(kit.event(6), kit.event(7, "other"))
            await scene.until_statuses(*["dead"] * 6, "pending")
        assert len(receiver.received) == 6


async def test_a_pace_is_kept(place: Place) -> None:
    seconds = kit.HandClock()
    async with serving(status(200)) as receiver, dispatching(place, batch_size=1, per_s=5) as scene:
        scene.dispatcher._dispatch._steady = seconds.seconds
        scene.set_webhook(receiver.url)
        await scene.partition.put(*(kit.event(number) for number in range(1, 13)))
        for arrived in (5, 10, 12):
            await scene.until(lambda arrived=arrived: len(receiver.received) == arrived)  # type: ignore[misc]
            await scene.until_at_rest()
            assert len(receiver.received) == arrived
            seconds.move(1)


async def test_the_rate_of_a_redrive_is_kept_and_used_whatever_was_planned(place: Place) -> None:
    now = kit.HandClock()
    async with serving(status(200)) as receiver, dispatching(place, now=now, batch_size=1) as scene:
        await scene.partition.put(*(kit.event(number) for number in range(1, 7)))
        await scene.until_statuses(*["not_due"] * 6)
        long_ago = partial(redrive.redrive, workspace_id="ws", now=kit.after(-3600), per_s=10.0)
        scene.set_webhook(receiver.url)
        scene.database.write_now(long_ago)
        for arrived in range(1, 7):
            await scene.until(lambda arrived=arrived: len(receiver.received) == arrived)  # type: ignore[misc]
            await scene.until_at_rest()
            assert len(receiver.received) == arrived
            now.move(0.1)


async def test_what_the_ledger_has_no_day_for_is_not_delivered(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    today = kit.START.date()
    ledger = kit.FixedLedger(Days(today, today))
    async with serving(status(200)) as receiver, dispatching(place, ledger=ledger) as scene:
        scene.set_webhook(receiver.url)
        late = kit.event(2).model_copy(update={"timestamp": kit.after(-1)})
        await scene.partition.put(late)
        await scene.until(lambda: scene.dispatcher.committed(kit.TOPIC, 0) == 2)
        await scene.partition.put(late, kit.event(1), late)
        await scene.until_statuses("delivered")
        assert [one.keys for one in receiver.received] == [["key-000001"]]
        assert scene.dispatcher.committed(kit.TOPIC, 0) == 5
    said = [record.getMessage() for record in caplog.records if "not delivered" in record.getMessage()]
    assert said == [
        "1 events are not delivered: the ledger takes none of their days (the last in spool/one/0 below offset 2)"
    ]


async def test_before_the_ledger_has_days_those_that_it_will_make_are_meant(place: Place) -> None:
    async with serving(status(200)) as receiver, dispatching(place, ledger=kit.FixedLedger(ledger_days.NONE)) as scene:
        scene.set_webhook(receiver.url)
        now = clock.steady()()
        recent = [
            kit.event(n).model_copy(update={"timestamp": now - timedelta(days=d)})
            for n, d in ((1, 0), (2, 99), (3, 101))
        ]
        await scene.partition.put(*recent)
        await scene.until_statuses("delivered")
        assert [one.keys for one in receiver.received] == [["key-000001", "key-000002"]]


async def test_settings_that_contradict_each_other_are_said_at_start(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(webhook_retry_for_s=5, webhook_backoff_first_s=10, webhook_backoff_most_s=20)
    with place.open() as opened:
        dispatcher = Dispatcher(opened, scenes.VAULT, clock.steady(), settings)
        await dispatcher.close()
    assert [record.getMessage().split(" (")[0] for record in caplog.records] == [
        "webhook_attempt_timeout_s",
        "the first wait",
    ]


@pytest.mark.parametrize("ticks", range(5))
async def test_a_cancellation_that_comes_with_a_wake_is_not_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch, ticks: int
) -> None:
    with place.open() as opened:
        dispatcher = Dispatcher(opened, scenes.VAULT, clock.steady(), Settings())
        turned = asyncio.Event()

        async def turn(_: object) -> float:
            turned.set()
            return 60.0

        monkeypatch.setattr(dispatcher._delivering, "_turn", turn)
        run = asyncio.create_task(dispatcher.run())
        await turned.wait()
        await asyncio.sleep(0)
        dispatcher._wake.set()
        for _ in range(ticks):
            await asyncio.sleep(0)
        run.cancel()
        done, _pending = await asyncio.wait({run}, timeout=5)
        assert done
        await dispatcher.close()
