"""The ledger's position is the truth: whatever the consumer group says, nothing is lost and nothing counts twice."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from sqlalchemy import Connection

from domain.positions import BeyondPositionError, LogShrunkError, PositionLostError
from domain.sources import EventBatch
from metering.store import transaction
from metering.topic import faust_consumer, worker
from metering.topic.batches import Counting
from schemas.topics import USAGE_EVENTS
from tests.integration.metering.topic.scene import Scene, failing, running, until


@contextmanager
def held(scene: Scene) -> Iterator[Callable[[], bool]]:
    """Hold back every move of a position, in the middle of its transaction, for the length of a `with` block."""
    go_on, reached = threading.Event(), threading.Event()

    def before(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "metering_position" in statement and not statement.startswith("SELECT"):
            reached.set()
            go_on.wait(30)

    sqlalchemy.event.listen(scene.database.engine, "after_cursor_execute", before)
    try:
        yield reached.is_set
    finally:
        go_on.set()
        sqlalchemy.event.remove(scene.database.engine, "after_cursor_execute", before)


async def delete_records(scene: Scene, before: int) -> None:
    """Delete what lies below an offset of partition 0, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=scene.where.bootstrap)
    await admin.start()
    try:
        place = TopicPartition(scene.where.name(USAGE_EVENTS), 0)
        await admin.delete_records({place: RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


async def test_a_stop_in_the_middle_of_a_transaction_loses_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STOP_WITHIN_S", 1.0)
    await scene.put(*(scene.event(number) for number in range(1, 6)))
    with held(scene) as is_reached:
        async with running(scene.worker()) as run:
            await until(is_reached, run)
        assert scene.counted() == 0, "the worker has gone, its transaction has not ended"
        assert await scene.offsets() == {0: None}, "nothing is acknowledged that is not committed"
    await scene.put(scene.event(6))
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 6, run)
    assert (scene.counted(), scene.requests()) == (6, 6)
    assert max(decision.requests for decision in await scene.decisions()) == 6


async def test_a_transaction_that_was_cut_off_and_rolled_back_is_read_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "STOP_WITHIN_S", 0.5)
    await scene.put(*(scene.event(number) for number in range(1, 6)))
    reached, go_on = threading.Event(), threading.Event()

    def apply(connection: Connection, batch: EventBatch, clock: Any, whole: Any = transaction.apply) -> Any:
        whole(connection, batch, clock)
        reached.set()
        go_on.wait(30)
        raise ConnectionError("the process was killed")

    with monkeypatch.context() as broken:
        broken.setattr(transaction, "apply", apply)
        async with running(scene.worker()) as run:
            await until(reached.is_set, run)
        go_on.set()
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 5, run)
    assert (scene.counted(), scene.requests()) == (5, 5)


async def test_a_group_that_is_ahead_of_the_position_is_not_believed(scene: Scene) -> None:
    await scene.put(*(scene.event(number) for number in range(1, 6)))
    await scene.set_offset(5)
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 5, run)
    assert scene.counted() == 5


async def test_a_position_that_was_set_back_is_read_from_again(scene: Scene) -> None:
    await scene.put(*(scene.event(number) for number in range(1, 6)))
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 5, run)
    assert await scene.offsets() == {0: 5}
    scene.set_position(2)
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 5, run)
    assert (scene.counted(), scene.requests()) == (5, 5)


async def test_a_group_without_offsets_does_not_begin_anew(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    await scene.put(*(scene.event(number) for number in range(1, 6)))
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 5, run)
    read: list[int] = []

    def note(counting: Any, found: Any, whole: Any = Counting._read) -> Any:
        read.extend(one.offset for one in found)
        return whole(counting, found)

    monkeypatch.setattr(Counting, "_read", note)
    monkeypatch.setattr(worker, "GROUP", "another")
    async with running(scene.worker()) as run:
        await scene.put(scene.event(6))
        await until(lambda: scene.position() == 6, run)
    assert set(read) == {5}


async def test_a_batch_beyond_the_position_ends_the_worker_and_is_counted_by_the_next(scene: Scene) -> None:
    await scene.put(*(scene.event(number) for number in range(1, 4)))
    run = asyncio.create_task(scene.worker().run())
    await until(lambda: scene.position() == 3, run)
    scene.set_position(1)
    await scene.put(scene.event(4))
    error = await failing(run)
    assert isinstance(error, BeyondPositionError)
    assert (scene.counted(), scene.position()) == (3, 1)
    assert await scene.offsets() == {0: 1}, "the position is what the group has now"

    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 4, run)
    assert (scene.counted(), scene.requests()) == (4, 4)


async def test_a_fetch_that_faust_loses_ends_the_worker_and_is_counted_by_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.put(scene.event(1))
    with monkeypatch.context() as broken:
        losing: list[int] = []

        async def getmany(
            consumer: Any, *, whole: Any = faust_consumer._Consumer.getmany, **options: float
        ) -> AsyncIterator[tuple[Any, Any]]:
            async for tp, message in whole(consumer, **options):
                if message.value.first_offset == 1 and not losing:
                    losing.append(1)
                    continue
                yield tp, message

        broken.setattr(faust_consumer._Consumer, "getmany", getmany)
        run = asyncio.create_task(scene.worker().run())
        await until(lambda: scene.position() == 1, run)
        await scene.put(scene.event(2))
        await until(lambda: bool(losing), run)
        await scene.put(scene.event(3))
        assert isinstance(await failing(run), BeyondPositionError)
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 3, run)
    assert scene.counted() == 3


async def test_a_batch_of_a_partition_that_another_worker_moved_is_dropped_and_the_worker_goes_on(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "metering.topic.worker")
    await scene.put(scene.event(1))
    lost: list[EventBatch] = []

    def apply(connection: Connection, batch: EventBatch, clock: Any, whole: Any = transaction.apply) -> Any:
        if not lost:
            lost.append(batch)
            scene.database.write_now(lambda other: whole(other, batch, clock))  # the other worker
            raise PositionLostError(batch)
        return whole(connection, batch, clock)

    monkeypatch.setattr(transaction, "apply", apply)
    async with running(scene.worker()) as run:
        await until(lambda: "the batch is dropped" in caplog.text, run)
        await scene.put(scene.event(2))
        await until(lambda: scene.position() == 2, run)
    assert (scene.counted(), scene.requests()) == (2, 2)
    assert [decision.requests for decision in await scene.decisions()][-1] == 2


async def test_what_retention_took_is_told_and_the_rest_is_counted(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.put(scene.event(1))
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 1, run)
    await scene.put(*(scene.event(number) for number in range(2, 7)))
    await delete_records(scene, 4)
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 6, run)
    assert scene.counted() == 3
    assert "usage.events.v1/0: offsets 1 to 3 were deleted before they were counted" in caplog.text
    assert "hold no record" not in caplog.text


async def test_offsets_that_kafka_no_longer_has_though_its_log_does_are_told_and_counted(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lost = {0, 3, 4}

    async def wait_next_records(
        consumer: Any, timeout_s: float, whole: Any = faust_consumer._Consumer._wait_next_records
    ) -> Any:
        found, active = await whole(consumer, timeout_s)
        kept = {tp: [one for one in records if one.offset not in lost] for tp, records in (found or {}).items()}
        return {tp: records for tp, records in kept.items() if records}, active

    monkeypatch.setattr(faust_consumer._Consumer, "_wait_next_records", wait_next_records)
    await scene.put(*(scene.event(number) for number in range(1, 7)))
    worker = scene.worker()
    async with running(worker) as run:
        await until(lambda: scene.position() == 6, run)
    assert (scene.counted(), worker._missing) == (3, 3)
    for hole in ("0 to 0", "3 to 4"):
        assert f"usage.events.v1/0: offsets {hole} hold no record, though the log begins at 0" in caplog.text
    assert "were deleted" not in caplog.text


async def test_a_partition_whose_beginning_is_gone_begins_with_what_is_there(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.put(*(scene.event(number) for number in range(1, 6)))
    await delete_records(scene, 3)
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 5, run)
    assert scene.counted() == 2
    assert "nothing is counted yet, and all before offset 3 is gone" in caplog.text


async def test_a_topic_that_ends_before_the_position_ends_the_worker(scene: Scene) -> None:
    await scene.put(scene.event(1))
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 1, run)
    scene.set_position(100)
    error = await failing(scene.worker().run())
    assert isinstance(error, LogShrunkError)
    assert "the topic was made anew" in str(error)
