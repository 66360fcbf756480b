"""Records that cannot be counted go aside, before the position passes them, and stop nobody."""

from collections.abc import Sequence
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, text

from metering.store import day_partitions
from metering.topic import unreadable
from runtime.kafka.writer import Kafka, KafkaAwayError, KafkaRecord, PlainRecord, Writer
from schemas.topics import USAGE_EVENTS, USAGE_UNREADABLE
from schemas.usage import UsageEvent
from tests.integration.metering.topic.scene import Scene, running, until

OWN_RULE = """
CREATE FUNCTION own_rule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.external_entity_id = 'refused' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '22023'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER own_rule BEFORE INSERT ON usage_event FOR EACH ROW EXECUTE FUNCTION own_rule();
"""


def encoded(event: UsageEvent) -> bytes:
    return event.model_dump_json().encode()


async def test_what_is_no_usage_event_goes_aside_as_it_came_with_reason_and_place(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.write(
        [
            (b"group-a", encoded(scene.event(1))),
            (b"other", b"no JSON"),
            (b"group-a", encoded(scene.event(2))),
            (b"other", b"x" * 40_000),
            (b"other", None),
            (b"group-a", encoded(scene.event(3))),
        ]
    )
    worker = scene.worker()
    async with running(worker) as run:
        await until(lambda: scene.position() == 6, run)

    assert (scene.counted(), scene.requests(), worker.put_aside) == (3, 3, 3)
    found = [unreadable.of(one) for one in await scene.unreadable()]
    assert [(one.source_partition, one.source_offset) for one in found] == [(0, 1), (0, 3), (0, 4)]
    assert [one.record.value for one in found] == [b"no JSON", b"x" * 40_000, None]
    assert {one.record.key for one in found} == {b"other"}
    assert {one.record.headers for one in found} == {(("ce_id", b"x"),)}
    assert [one.reason.split(":")[0] for one in found] == [
        "Invalid JSON",
        "it has 40000 bytes; a usage event has 32768 at most",
        "it has no value",
    ]
    assert caplog.text.count("put aside as unreadable") == 1, "one line for each batch, not for each record"
    assert [decision.requests for decision in await scene.decisions()][-1] == 3


class WithoutAside(Writer):
    """Has no Kafka for what goes aside."""

    def __init__(self, where: Kafka) -> None:
        super().__init__(where, "without aside")
        self.tries = 0
        self.is_away = True

    async def write(self, topic: str, records: Sequence[PlainRecord], within_s: float = 10.0) -> None:
        if topic == USAGE_UNREADABLE and self.is_away:
            self.tries += 1
            raise KafkaAwayError("no answer")
        await super().write(topic, records, within_s)


async def test_the_position_does_not_pass_a_record_that_is_not_aside_yet(scene: Scene) -> None:
    writer = WithoutAside(scene.where)
    await scene.write([(b"group-a", encoded(scene.event(1))), (b"other", b"no JSON")])
    async with running(scene.worker(writer=writer)) as run:
        await until(lambda: writer.tries > 1, run)
        assert (scene.position(), scene.counted()) == (None, 0)
        writer.is_away = False
        await until(lambda: scene.position() == 2, run)
    await writer.close()
    assert len(await scene.unreadable()) == 1


@pytest.mark.parametrize("poisoned", [{7}, {0}, {19}, {3, 4, 16}, set(range(20))])
async def test_what_the_database_refuses_is_found_among_the_others_and_goes_aside_alone(
    scene: Scene, poisoned: set[int]
) -> None:
    """What the contract lets pass, and a database refuses all the same: here one that has a rule of its own."""
    scene.database.write_now(lambda connection: connection.execute(text(OWN_RULE)))
    events = [
        scene.event(number + 1, external_entity_id="refused" if number in poisoned else "customer")
        for number in range(20)
    ]
    await scene.put(*events)
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 20, run)
        await scene.put(scene.event(21))
        await until(lambda: scene.position() == 21, run)

    assert scene.counted() == scene.requests() == 21 - len(poisoned)
    found = [unreadable.of(one) for one in await scene.unreadable()]
    assert {one.source_offset for one in found} == poisoned
    assert len(found) == len(poisoned)
    assert all(one.reason.startswith("the database refuses it: ") for one in found)
    assert {one.record.value for one in found} == {encoded(events[number]) for number in poisoned}


async def test_an_event_whose_day_has_gone_or_is_far_ahead_goes_aside(scene: Scene) -> None:
    await scene.put(
        scene.event(1),
        scene.event(2, timestamp=scene.now - timedelta(days=200)),
        scene.event(3, timestamp=scene.now + timedelta(days=30)),
        scene.event(4, timestamp=scene.now - timedelta(days=90)),
    )
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 4, run)
    assert scene.counted() == 2
    first, second = [unreadable.of(one).reason for one in await scene.unreadable()]
    assert "is no longer kept" in first
    assert "is too far ahead" in second


async def test_a_day_that_is_dropped_while_the_worker_runs_is_noticed(scene: Scene) -> None:
    async with running(scene.worker()) as run:
        await scene.put(scene.event(1))
        await until(lambda: scene.position() == 1, run)
        days = scene.database.read_now(day_partitions.open_days)
        scene.database.write_now(
            lambda connection: connection.execute(text(f"DROP TABLE usage_event_{days.first:%Y_%m_%d}"))
        )
        late = scene.now - timedelta(days=(scene.now.date() - days.first).days)
        await scene.put(scene.event(2), scene.event(3, timestamp=late))
        await until(lambda: scene.position() == 3, run)
    assert scene.counted() == 2
    (found,) = [unreadable.of(one) for one in await scene.unreadable()]
    assert "is no longer kept" in found.reason


def made_last_week(scene: Scene) -> None:
    """Let the ledger have the days that were made eight days ago."""

    def work(connection: Connection) -> None:
        for day in day_partitions.open_days(connection).each():
            connection.execute(text(f"DROP TABLE usage_event_{day:%Y_%m_%d}"))
        day_partitions.ensure(connection, scene.now.date() - timedelta(days=8))

    scene.database.write_now(work)


async def test_a_day_that_is_missing_ahead_is_made(scene: Scene) -> None:
    made_last_week(scene)
    assert scene.database.read_now(day_partitions.open_days).last < scene.now.date(), "nobody was there to make today"
    await scene.put(scene.event(1))
    async with running(scene.worker()) as run:
        await until(lambda: scene.position() == 1, run)
    assert scene.counted() == 1
    assert await scene.unreadable() == []


async def test_today_is_made_while_the_worker_runs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    days = day_partitions.open_days
    made_last_week(scene)
    ensured: list[object] = []

    def ensure(connection: Connection, today: date, whole: Any = day_partitions.ensure) -> Any:
        ensured.append(today)
        return whole(connection, today) if len(ensured) > 1 else ()

    monkeypatch.setattr(day_partitions, "ensure", ensure)
    async with running(scene.worker()) as run:
        await scene.put(scene.event(1, timestamp=scene.now - timedelta(days=2)))
        await until(lambda: scene.position() == 1, run)
        assert scene.database.read_now(days).last < scene.now.date()
        await scene.put(scene.event(2))
        await until(lambda: scene.position() == 2, run)
    assert scene.counted() == 2
    assert await scene.unreadable() == []


async def test_what_lies_aside_is_read_and_can_be_found_by_its_place(scene: Scene) -> None:
    source = SimpleNamespace(key=b"k", value=b"v", headers=(), partition=0, offset=9, timestamp=0)
    await scene.writer.write(USAGE_UNREADABLE, [unreadable.aside(source, f"reason {number}") for number in range(1200)])

    found = [one async for some in unreadable.stored(scene.where) for one in some]
    assert [one.reason for one in found] == [f"reason {number}" for number in range(1200)]
    assert found[700].record == KafkaRecord(b"k", b"v")
    assert await unreadable.at(scene.where, 0, 700) == found[700]
    for partition, offset in ((0, 1200), (1, 0)):
        assert await unreadable.at(scene.where, partition, offset) is None


async def test_a_topic_that_is_not_there_is_named(kafka: Kafka) -> None:
    with pytest.raises(KafkaAwayError, match="run `tollgate migrate`"):
        await unreadable.at(kafka, 0, 0)
    assert USAGE_EVENTS not in USAGE_UNREADABLE
