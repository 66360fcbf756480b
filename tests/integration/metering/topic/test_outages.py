"""A worker while the database or Kafka is away, and one whose stream hangs."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from domain.sources import EventBatch
from infra.local.kafka import Broker
from metering.store import positions, transaction
from metering.topic import faust_consumer, lanes, watchdog
from metering.topic import worker as metering_worker
from metering.topic.watchdog import StalledError
from runtime import clock
from runtime.database.engines import Database
from runtime.kafka.writer import Kafka, KafkaAwayError, PlainRecord, Writer
from schemas.decisions import Whole
from schemas.topics import LIMITS_DECISIONS, USAGE_EVENTS, WHOLE_KEY
from schemas.usage import UsageEvent
from tests.integration.metering.topic.scene import Ahead, Scene, away, failing, places, running, until
from tests.support import records
from tests.unit.runtime.kafka.fakes import HandTime


async def no_pause(_: float) -> None:
    await asyncio.sleep(0)


async def test_an_outage_of_the_database_is_waited_out(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "metering")
    await scene.put(scene.event(1))
    with monkeypatch.context() as broken:
        broken.setattr(transaction, "apply", away)
        worker = scene.worker()
        async with running(worker) as run:
            await until(lambda: "metering waits for the database" in caplog.text, run)
            generation = worker._fetches._consumer._generation
            broken.undo()
            await until(lambda: scene.counted() == 1, run)
            assert worker._fetches._consumer._generation == generation, "it was never out of its group"
    assert caplog.text.count("metering waits for the database") == 1
    assert [decision.requests for decision in await scene.decisions()] == [1]


async def test_a_worker_that_is_given_partitions_while_the_database_is_away_waits_for_their_positions(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.put(scene.event(1))
    await scene.set_offset(1)
    with monkeypatch.context() as broken:
        broken.setattr(positions, "read", away)
        async with running(scene.worker()) as run:
            await until(lambda: "metering waits for the database" in caplog.text, run)
            broken.undo()
            await until(lambda: scene.counted() == 1, run)


async def test_what_does_not_pass_by_itself_ends_the_worker(scene: Scene) -> None:
    await scene.put(scene.event(1))
    scene.database.write_now(lambda connection: connection.execute(text("ALTER TABLE usage_daily RENAME TO gone")))
    assert isinstance(await failing(scene.worker().run()), ProgrammingError)
    assert scene.counted() == 0
    assert await scene.unreadable() == [], "it is not the record's fault"


class RefusingWriter(Writer):
    """Has no Kafka for decisions on counters for some tries."""

    def __init__(self, where: Kafka, tries: int) -> None:
        super().__init__(where, "refusing")
        self.left = tries

    async def write_to(
        self, topic: str, partition: int, records: Sequence[PlainRecord], within_s: float = 10.0
    ) -> list[int]:
        if records[0][0] != WHOLE_KEY and self.left:
            self.left -= 1
            raise KafkaAwayError("no answer")
        return await super().write_to(topic, partition, records, within_s)


async def test_what_could_not_be_published_is_published_when_kafka_is_back_and_only_then_acknowledged(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering_worker, "_COMMIT_EVERY_S", 0.05)
    writer = RefusingWriter(scene.where, 1_000_000)
    await scene.put(scene.event(1))
    async with running(scene.worker(writer=writer)) as run:
        await until(lambda: scene.counted() == 1, run)
        await until(lambda: writer.left < 1_000_000, run)
        assert await scene.offsets() == {0: None}
        writer.left = 0
        async with asyncio.timeout(60):
            while await scene.offsets() != {0: 1}:  # noqa: ASYNC110 - Kafka tells nobody
                await asyncio.sleep(0.1)
    await writer.close()
    assert [decision.requests for decision in await scene.decisions()] == [1]


async def test_what_was_not_published_before_a_kill_is_published_by_the_next_worker(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering_worker, "STOP_WITHIN_S", 0.2)
    writer = RefusingWriter(scene.where, 1_000_000)
    await scene.put(scene.event(1))
    worker = scene.worker(writer=writer)
    run = asyncio.create_task(worker.run())
    await until(lambda: scene.counted() == 1, run)
    run.cancel()
    await asyncio.wait({run}, timeout=30)
    await writer.close()
    assert await scene.decisions() == []

    async with running(scene.worker()), asyncio.timeout(60):
        while not (found := await scene.decisions()):  # noqa: ASYNC110 - Kafka tells nobody
            await asyncio.sleep(0.1)
    assert [decision.requests for decision in found] == [1], (
        "told when the lane is taken over: its batch is not read again"
    )


async def test_what_was_not_published_before_a_kill_is_published_however_late_the_next_worker_comes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "WHOLE_SOON", timedelta())
    monkeypatch.setattr(metering_worker, "STOP_WITHIN_S", 0.2)
    await scene.put(scene.event(1, "group-a"))
    async with running(scene.worker()) as run:
        await until(lambda: scene.published() == 1, run)
    writer = RefusingWriter(scene.where, 1_000_000)
    await scene.put(scene.event(2, "group-b"))
    run = asyncio.create_task(scene.worker(writer=writer, goes_by=Ahead(timedelta(days=1))).run())
    await until(lambda: scene.counted() == 2 and writer.left < 1_000_000, run)
    run.cancel()
    await asyncio.wait({run}, timeout=30)
    await writer.close()
    assert {decision.group_id for decision in await scene.decisions()} == {"group-a"}

    async with running(scene.worker(goes_by=Ahead(timedelta(days=3)))) as run:
        await until(lambda: scene.published() == 2, run)
    assert {decision.group_id for decision in await scene.decisions()} == {"group-a", "group-b"}
    assert {usage.group_id for usage in await scene.daily()} == {"group-a", "group-b"}


async def test_what_a_late_worker_left_to_another_is_published_though_nobody_counts_it_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka takes nothing for more than 10 minutes, and for a moment the partition is another worker's."""
    monkeypatch.setattr(lanes, "WHOLE_SOON", timedelta())
    writer, goes_by = RefusingWriter(scene.where, 1_000_000), Ahead(timedelta(minutes=11))
    await scene.put(scene.event(1))
    async with running(scene.worker(writer=writer, goes_by=goes_by, pause=_short)) as run:
        await until(lambda: scene.counted() == 1 and writer.left < 1_000_000, run)
        second = scene.event(2, "group-b")
        await scene.put(second)
        other = EventBatch(USAGE_EVENTS, 0, lanes.lane_of(0), 1, 2, (second,))
        scene.database.write_now(lambda connection: transaction.apply(connection, other, clock.steady()))
        goes_by.by += timedelta(seconds=10)
        writer.left = 0
        await until(lambda: scene.published() == 2, run)
    await writer.close()
    assert {decision.group_id for decision in await scene.decisions()} == {"group-a", "group-b"}


async def test_what_another_has_written_late_is_told_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "WHOLE_SOON", timedelta())
    await scene.put(scene.event(1), scene.event(2, "group-b"))
    async with running(scene.worker()) as run:
        await until(lambda: scene.published() == 2, run)
        (stale,) = [one for one in (await records.read(scene.where, LIMITS_DECISIONS))[0] if b"group-b" in one.key]
        await scene.put(scene.event(3, "group-b"), scene.event(4))
        await until(lambda: scene.published() == 4, run)
        await scene.writer.write_to(LIMITS_DECISIONS, 0, [(stale.key, stale.value, ())])
        assert (await scene.decisions())[-1].requests == 1, "so compaction would leave it"
        await scene.put(scene.event(5))
        await until(lambda: scene.published() == 5, run)
    newest = {decision.group_id: decision.requests for decision in await scene.decisions()}
    assert newest == {"group-a": 3, "group-b": 2}


async def test_whole_is_told_behind_each_lanes_decisions_and_at_the_end(scene: Scene) -> None:
    await scene.put(scene.event(1))
    async with running(scene.worker()) as run:
        await until(lambda: scene.counted() == 1, run)
    found = (await records.read(scene.where, LIMITS_DECISIONS))[0]
    wholes = [Whole.model_validate_json(one.value) for one in found if one.key == WHOLE_KEY]
    assert (found[0].key, found[-1].key) == (WHOLE_KEY, WHOLE_KEY)
    assert (wholes[0], wholes[-1]) == (Whole(lane=0, at=0), Whole(lane=0, at=1))
    progress = scene.database.read_now(lambda connection: positions.read(connection, USAGE_EVENTS, 0))
    assert progress is not None
    assert (progress.told_offset, progress.told_end) == (1, found[-1].offset + 1)


async def test_a_stream_that_hangs_ends_the_worker(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.1)

    async def getmany(_: Any, **options: float) -> AsyncIterator[tuple[Any, Any]]:
        await asyncio.sleep(options["timeout"])
        nothing: tuple[tuple[Any, Any], ...] = ()
        for one in nothing:
            yield one

    monkeypatch.setattr(faust_consumer._Consumer, "getmany", getmany)
    await scene.put(scene.event(1))
    error = await failing(scene.worker(stalled_s=3).run())
    assert isinstance(error, StalledError)
    assert "usage.events.v1/0 at None, 1 behind" in str(error)


async def test_a_worker_that_waits_for_the_database_does_not_count_as_hanging(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(metering_worker, "_COMMIT_EVERY_S", 3600.0)
    await scene.put(scene.event(1))
    with monkeypatch.context() as broken:
        broken.setattr(transaction, "apply", away)
        time = HandTime()

        async def rest(seconds: float) -> None:
            if seconds != metering_worker._COMMIT_EVERY_S:  # time passes only between two tries
                time.now += 1
            await asyncio.sleep(0.02)

        looks: list[float] = []
        look = watchdog.Watchdog.look

        async def noted(self: watchdog.Watchdog) -> None:
            await look(self)
            looks.append(time.now - began)

        monkeypatch.setattr(watchdog.Watchdog, "look", noted)
        worker, began = scene.worker(stalled_s=3, pause=rest), time.now
        worker._watchdog._steady = time
        async with running(worker) as run:
            await until(lambda: bool(looks) and looks[-1] > 9, run)  # three times the bound
            broken.undo()
            await until(lambda: scene.counted() == 1, run)


async def _short(_: float) -> None:
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("scene", [4], indirect=True)
async def test_rebalances_while_the_database_is_away_lose_nothing_and_count_nothing_twice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.put(*(scene.event(number, f"group-{number % 20}") for number in range(1, 101)))
    first, second = scene.worker(), scene.worker()
    with monkeypatch.context() as broken:
        broken.setattr(transaction, "apply", away)
        async with running(first) as one:
            await until(lambda: sum(at.next_offset for at in places(first)) == 100, one)
            async with running(second) as two:
                await until(lambda: len(places(second)) == 2 and len(places(first)) == 2, two)
            await until(lambda: len(places(first)) == 4, one)
            assert scene.counted() == 0
            broken.undo()
            await until(lambda: scene.counted() == 100, one)
            await scene.put(scene.event(101))
            await until(lambda: scene.counted() == 101, one)
    assert scene.requests() == 101


async def test_a_stop_while_kafka_hangs_is_bounded(
    kafka_broker: Broker, postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering_worker, "STOP_WITHIN_S", 5.0)
    where = Kafka(kafka_broker.bootstrap)
    await records.make_topics(where, partitions=2)
    scene = Scene(where, postgres)
    await scene.put(scene.event(1))
    worker = scene.worker()
    run = asyncio.create_task(worker.run())
    await until(lambda: scene.counted() == 1, run)
    kafka_broker.process.pause()
    async with asyncio.timeout(60):
        await worker.stop()
    assert run.done(), "it would have waited for Faust, and Faust for its requests to Kafka"
    kafka_broker.process.resume()
    await asyncio.wait({run}, timeout=30)
    await scene.writer.close()


async def _is_taken(scene: Scene, event: UsageEvent) -> bool:
    """Write an event; return whether Kafka has it. One that it has twice is counted once."""
    try:
        await scene.put(event)
    except KafkaAwayError:
        return False
    return True


async def test_a_restart_of_kafka_is_survived_or_ends_the_worker_and_nothing_is_lost(
    kafka_broker: Broker, postgres: Database
) -> None:
    where = Kafka(kafka_broker.bootstrap)
    await records.make_topics(where, partitions=2)
    scene = Scene(where, postgres)
    numbers = itertools.count(1)
    await scene.put(scene.event(next(numbers)))
    run = asyncio.create_task(scene.worker().run())
    await until(lambda: scene.counted() == 1, run)
    kafka_broker.process.kill()
    await asyncio.wait({run}, timeout=2)
    kafka_broker.start()
    second = scene.event(next(numbers))
    async with asyncio.timeout(90):  # a killed broker has to find its partitions again, longer than one write waits
        while not await _is_taken(scene, second):  # noqa: ASYNC110 - a try is all there is to see
            await asyncio.sleep(0.1)
    async with asyncio.timeout(90):
        while scene.counted() < 2:
            if run.done():
                run = asyncio.create_task(scene.worker().run())
            await asyncio.sleep(0.1)
    run.cancel()
    await asyncio.wait({run}, timeout=30)
    await scene.writer.close()
    assert scene.requests() == 2
