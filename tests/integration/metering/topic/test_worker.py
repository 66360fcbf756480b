"""A metering worker: it counts what Kafka holds once, publishes it, and lets go of everything at its end."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from metering.thresholds import GroupThresholds
from metering.topic.faust_consumer import Fetch
from schemas.limits import LimitType
from schemas.topics import USAGE_EVENTS
from tests.integration.metering.topic.scene import Scene, running, until
from tests.unit.metering.factories import change, group

FOUR = pytest.mark.parametrize("scene", [4], indirect=True)


@FOUR
async def test_events_of_all_partitions_are_counted_and_published(scene: Scene) -> None:
    thresholds = GroupThresholds()
    thresholds.apply(change(1, "group-3", group("group-3", requests=20)))
    await scene.put(*(scene.event(number, f"group-{number % 10}") for number in range(1, 201)))
    worker = scene.worker(thresholds=thresholds)
    async with running(worker) as run:
        await until(lambda: scene.counted() == 200, run)
        await scene.put(scene.event(201, "group-3"))
        await until(lambda: scene.counted() == 201, run)

    newest = {decision.group_id: decision for decision in await scene.decisions()}
    assert {group_id: decision.requests for group_id, decision in newest.items()} == {
        f"group-{number}": 21 if number == 3 else 20 for number in range(10)
    }
    assert {threshold.type for threshold in newest["group-3"].used_up} == {LimitType.REQUEST}
    assert newest["group-4"].used_up == ()
    assert {usage.group_id: usage.requests for usage in await scene.daily()} == {
        group_id: decision.requests for group_id, decision in newest.items()
    }
    assert scene.requests() == 201


@FOUR
async def test_the_groups_offsets_say_how_far_it_is(scene: Scene) -> None:
    await scene.put(*(scene.event(number, f"group-{number}") for number in range(1, 41)))
    async with running(scene.worker()) as run:
        await until(lambda: scene.counted() == 40, run)
    assert await scene.offsets() == {partition: scene.position(partition) for partition in range(4)}


async def test_a_restart_goes_on_where_the_last_run_ended(scene: Scene) -> None:
    for last in (3, 5):
        await scene.put(*(scene.event(number) for number in range(last - 2, last + 1)))
        async with running(scene.worker()) as run:
            await until(lambda last=last: scene.position() == (3 if last == 3 else 6), run)  # type: ignore[misc]
    assert (scene.counted(), scene.requests()) == (5, 5)


@FOUR
async def test_a_second_worker_takes_its_share_and_nothing_counts_twice(scene: Scene) -> None:
    await scene.put(*(scene.event(number, f"group-{number % 20}") for number in range(1, 101)))
    first, second = scene.worker(), scene.worker()
    async with running(first) as one:
        await until(lambda: scene.counted() > 0, one)
        async with running(second) as two:
            await until(lambda: len(second._owned()) == 2 and len(first._owned()) == 2, two)
            await scene.put(*(scene.event(number, f"group-{number % 20}") for number in range(101, 201)))
            await until(lambda: scene.counted() == 200, two)
        await until(lambda: len(first._owned()) == 4, one)
        await scene.put(scene.event(201))
        await until(lambda: scene.counted() == 201, one)
    assert scene.requests() == 201


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty working directory, which must stay so."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


async def test_nothing_is_left_behind(scene: Scene, empty: Path) -> None:
    handlers = list(logging.getLogger().handlers)
    threads, tasks = set(threading.enumerate()), asyncio.all_tasks()
    await scene.put(scene.event(1))
    async with running(scene.worker()) as run:
        await until(lambda: scene.counted() == 1, run)
        ours = set(threading.enumerate()) - threads
        assert all(thread.daemon or thread.name.startswith("db-") for thread in ours)
    await scene.writer.close()
    await asyncio.sleep(0)  # what was cancelled last ends in the next turn

    left = {thread for thread in set(threading.enumerate()) - threads if not thread.name.startswith("db-")}
    assert (left, asyncio.all_tasks() - tasks) == (set(), set())
    assert logging.getLogger().handlers == handlers


async def test_a_worker_that_is_stopped_before_it_began_ends(scene: Scene) -> None:
    worker = scene.worker()
    async with asyncio.timeout(15):
        run = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        await worker.stop()
        await run


async def test_a_worker_that_never_ran_is_stopped_at_once(scene: Scene) -> None:
    async with asyncio.timeout(15):
        await scene.worker().stop()


async def test_what_was_fetched_before_a_rebalance_is_left_to_whoever_owns_the_partition_now(scene: Scene) -> None:
    worker = scene.worker()
    async with running(worker) as run:
        await until(lambda: bool(worker._owned()), run)
        value = scene.event(1).model_dump_json().encode()
        record = SimpleNamespace(value=value, key=b"", headers=(), partition=0, offset=0)
        await worker._take([Fetch(0, 0, 1, [record], generation=-1)])
        assert (scene.counted(), scene.position()) == (0, None)


async def test_a_worker_that_is_cancelled_ends(scene: Scene) -> None:
    worker = scene.worker()
    await scene.put(scene.event(1))
    run = asyncio.create_task(worker.run())
    await until(lambda: scene.counted() == 1, run)
    run.cancel()
    async with asyncio.timeout(15):
        with pytest.raises(asyncio.CancelledError):
            await run


async def test_a_missing_topic_is_waited_for_and_never_made(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    other = Scene(type(scene.where)(scene.where.bootstrap, f"{scene.where.prefix}other."), scene.database)
    async with running(other.worker()):
        await until(lambda: "run `tollgate migrate`" in caplog.text)
    async with scene.group() as consumer:
        assert other.where.name(USAGE_EVENTS) not in await consumer.topics()
    await other.writer.close()
