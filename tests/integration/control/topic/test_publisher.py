"""What the relay to Kafka sends, when, and what it does when it cannot."""

import logging

import pytest
from sqlalchemy import insert

from control.store import published
from control.topic import publisher
from runtime.config import log as config_log
from runtime.config.log import CONFIG_CHANGE
from runtime.config.records import UnknownKindError
from runtime.database.engines import Database
from runtime.database.leadership import LeadershipLostError
from runtime.kafka.writer import KafkaAwayError, KafkaRecord, RecordTooLargeError
from schemas import base
from tests.integration.runtime.config import kit, scene
from tests.integration.runtime.config.kit import Scene


async def test_changes_go_out_in_order_once_and_are_marked(begun: Scene) -> None:
    for id_ in ("a", "b", "a"):
        begun.change(id_)
    begun.change("b", None)
    await begun.step()
    await begun.step()
    assert begun.topics.names() == [("a", 1), ("b", 2), ("a", 3), ("b", 4)]
    assert [change.record for change in begun.topics.changes()][2:] == [scene.workspace("a"), None]
    assert begun.mark(published.CONFIG) == 4


async def test_what_was_not_acknowledged_is_not_marked_and_goes_out_again(begun: Scene) -> None:
    begun.change("a")
    begun.topics.refuses = lambda record: KafkaAwayError("away")
    with pytest.raises(KafkaAwayError):
        await begun.step()
    assert begun.mark(published.CONFIG) == 0
    begun.topics.refuses = lambda record: None
    await begun.step()
    assert begun.topics.names() == [("a", 1)]


async def test_the_next_process_goes_on_where_the_last_one_stood(begun: Scene) -> None:
    begun.change("old")
    await begun.step()
    begun.time.now += 3600
    begun.topics.forget()
    begun.change("new")
    await begun.begin()
    assert begun.topics.names()[0] == ("new", 2)
    assert {name for name, _ in begun.topics.names()} == {"new"}


def test_a_mark_moves_on_only(database: Database) -> None:
    database.write_now(lambda connection: published.advance(connection, published.CONFIG, 5))
    database.write_now(lambda connection: published.advance(connection, published.CONFIG, 3))
    assert database.read_now(lambda connection: published.read(connection, published.CONFIG)) == 5
    database.write_now(lambda connection: published.put(connection, published.CONFIG, 1))
    assert database.read_now(lambda connection: published.read(connection, published.CONFIG)) == 1


async def test_nothing_is_sent_without_the_lock(begun: Scene) -> None:
    begun.change("a")
    begun.topics.is_leading = False
    with pytest.raises(LeadershipLostError):
        await begun.step()
    assert begun.topics.written == []


async def test_a_lost_message_is_mended_within_the_minute(begun: Scene) -> None:
    begun.topics.loses = lambda record: b'"b"' in (record.value or b"")
    for id_ in ("a", "b", "c"):
        begun.change(id_)
    await begun.step()
    begun.topics.end += 1  # the broker gave it a place and lost it afterwards
    begun.topics.loses = lambda record: False
    assert begun.topics.names() == [("a", 1), ("c", 3)]
    await begun.step(after_s=50)
    assert begun.topics.names()[2:] == [("a", 1), ("b", 2), ("c", 3)]


async def test_a_message_that_the_last_process_lost_is_mended_at_once(begun: Scene) -> None:
    begun.change("a")
    await begun.step()
    begun.topics.forget()
    await begun.begin()
    assert begun.topics.names() == [("a", 1)]


async def test_changes_older_than_10_minutes_are_not_written_again(begun: Scene) -> None:
    begun.change("old")
    begun.time.now += 599
    begun.change("young")
    await begun.step()
    begun.topics.forget()
    await begun.step(after_s=46)
    assert begun.topics.names() == [("young", 2)]


async def test_what_is_sent_while_others_are_written_again_comes_last(
    begun: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_BATCH", 2)
    for id_ in ("a", "b", "c"):
        begun.change(id_)
    await begun.step()
    begun.topics.forget()
    begun.time.now += 46
    assert await begun.relay.step()  # the first two are written again
    begun.change("a", "renamed")
    await begun.step()
    last = {change.id: change.version for change in begun.topics.changes()}  # as compaction would keep them
    assert last == {"a": 4, "b": 2, "c": 3}


async def test_a_heartbeat_every_three_seconds_with_the_newest_version(begun: Scene) -> None:
    begun.change("a")
    await begun.step()
    assert begun.topics.heartbeats() == []
    for _ in range(6):
        await begun.step(after_s=1)
    assert begun.topics.heartbeats() == [1, 1]


async def test_rows_are_kept_for_48_hours_and_until_they_are_sent(begun: Scene) -> None:
    begun.change("a")
    await begun.step()
    await begun.step(after_s=47 * 3600)
    assert begun.logged() == [1]
    begun.change("b")
    await begun.step(after_s=3601)
    assert begun.logged() == [2]
    begun.change("never sent")
    begun.time.now += 49 * 3600
    begun.topics.refuses = lambda record: KafkaAwayError("away") if b"never" in record.key else None
    with pytest.raises(KafkaAwayError):
        await begun.step()
    await begun.relay._forget()
    assert begun.logged() == [3]


async def test_many_old_rows_go_in_several_transactions(begun: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_log, "STEP", 2)
    for number in range(5):
        begun.change(str(number))
    await begun.step()
    await begun.step(after_s=49 * 3600)
    assert begun.logged() == []


async def test_a_record_that_kafka_never_takes_holds_nothing_back(
    begun: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    begun.topics.refuses = lambda record: RecordTooLargeError("too large") if b"huge" in record.key else None
    for id_ in ("a", "huge", "b"):
        begun.change(id_)
    await begun.step()
    assert [name for name, _ in begun.topics.names()] == ["a", "b"]
    assert begun.mark(published.CONFIG) == 3
    assert "workspace/huge" in caplog.text


async def test_a_kind_of_a_newer_version_is_passed_on(begun: Scene) -> None:
    row = {"version": 1, "kind": "quota", "id": "q", "record": {"much": 1}, "created_at": begun.now()}
    begun.database.write_now(lambda connection: connection.execute(insert(CONFIG_CHANGE).values(row)))
    await begun.step()
    (record,) = begun.topics.config()
    at = base.rfc3339(begun.now())
    assert record.key == b"quota/q"
    assert record.value == b'{"version":1,"kind":"quota","id":"q","record":{"much":1},"at":"%s"}' % at.encode()
    with pytest.raises(UnknownKindError):
        kit.decoded([record])


async def test_one_waits_while_another_leads_and_a_poke_is_not_kept_waiting(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "POLL_S", 3600.0)
    begun = Scene(database)
    begun.topics.is_free = False
    begun.change("a")
    async with scene.running(begun.relay.run):
        await begun.topics.until(lambda: begun.time.now > 1010)
        assert begun.topics.written == []
        begun.topics.is_free = True
        await begun.topics.arrived("a")
        begun.change("b")
        begun.relay.poke()
        await begun.topics.arrived("b")
    assert begun.topics.is_closed


async def test_what_is_in_force_was_published_by_this_process_or_another(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "POLL_S", 3600.0)
    monkeypatch.setattr(publisher, "PUBLISHED_WITHIN_S", 60.0)
    begun, another = Scene(database), Scene(database)
    begun.change("a")
    async with scene.running(begun.relay.run):
        await begun.topics.arrived("a")
        for name in ("b", "c"):
            begun.change(name)
            await begun.relay.in_force()
            assert name in dict(begun.topics.names())
            await another.relay.in_force()
    begun.change("d")
    monkeypatch.setattr(publisher, "PUBLISHED_WITHIN_S", 0.0)
    for one in (begun, another):
        await one.relay.in_force()
    assert "d" not in dict(begun.topics.names())


async def test_an_outage_is_waited_out_and_said_once(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    begun = Scene(database)
    begun.change("a")
    left = 5

    def refuse(record: KafkaRecord) -> Exception | None:
        nonlocal left
        left -= 1
        return KafkaAwayError("away") if left > 0 else None

    begun.topics.refuses = refuse
    async with scene.running(begun.relay.run):
        await begun.topics.until(lambda: begun.topics.heartbeats() != [])
        begun.change("b")
        await begun.topics.arrived("b")
    said = [message for message in caplog.messages if message.startswith("the relay to Kafka")]
    assert said == [
        "the relay to Kafka waits for the database and Kafka: away",
        "the relay to Kafka goes on: the database and Kafka is back",
    ]
