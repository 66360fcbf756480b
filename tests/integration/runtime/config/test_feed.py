"""The configuration's feed over a Kafka in memory and a real database of each engine; time is moved by hand."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import event

from runtime.config import feed as config_feed
from runtime.config import log as config_log
from runtime.database.engines import Database
from schemas.config import ConfigChange, ConfigKind
from tests.integration.runtime.config import scene
from tests.integration.runtime.config.follower import START, Follower, silent
from tests.support import engines


async def test_with_kafka_there_no_database_is_needed() -> None:
    follower = Follower(None)
    follower.send(1, "a")
    follower.beat(1)
    async with follower.running():
        follower.send(2, "b")
        follower.beat(2)
        await follower.heard.version(2)
        follower.send(3, "a", None)
        await follower.heard.version(3)
        await follower.passed(60)
    assert follower.names() == [("a", 1), ("b", 2), ("a", 3)]
    assert follower.feed.version == 3


async def test_a_topic_that_is_not_filled_yet_is_not_all_of_the_configuration() -> None:
    follower = Follower(None)
    follower.send(1, "a")
    async with scene.running(follower.feed.run):
        await follower.heard.version(1)
        await follower.passed(30)
        assert not follower.feed.is_caught_up
        follower.beat(1)
        await follower.feed.caught_up()
        assert follower.feed.is_caught_up


async def test_only_what_the_process_needs_is_decoded() -> None:
    follower = Follower(None, [ConfigKind.GROUP])
    follower.send(1, "a")
    follower.beat(1)
    async with follower.running():
        pass
    assert follower.heard.changes == []
    assert follower.feed.version == 1


async def test_a_change_that_cannot_be_applied_holds_no_other_back(caplog: pytest.LogCaptureFixture) -> None:
    follower = Follower(None)
    apply = follower.heard.apply

    def refuse(changes: Sequence[ConfigChange]) -> None:
        if any(change.id == "bad" for change in changes):
            raise LookupError("of a secret")
        apply(changes)

    follower.heard.apply = refuse  # type: ignore[method-assign]
    for version, id_ in enumerate(("a", "bad", "b"), 1):
        follower.send(version, id_)
    follower.beat(3)
    async with follower.running():
        pass
    assert follower.names() == [("a", 1), ("b", 3)]
    assert "version 2 of a workspace: LookupError" in caplog.text
    assert "secret" not in caplog.text


async def test_in_a_silence_the_database_is_asked_within_the_minute(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    follower = Follower(database)
    async with silent(follower):
        follower.change("second")
        began = follower.time.now
        await follower.heard.version(2)
        assert follower.time.now - began < 60
        follower.change("third", None)
        began = follower.time.now
        await follower.heard.version(3)
        assert follower.time.now - began < 60
    assert follower.heard.changes[-1].record is None
    assert [message for message in caplog.messages if "relay" in message] == [
        "gateway.config.v1: the relay is not heard: the database is asked for changes"
    ]


async def test_while_the_relay_is_heard_the_database_is_left_alone(database: Database) -> None:
    follower = Follower(database)
    asked = 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    follower.beat(1)
    async with follower.running():
        for engine in database.engines:
            event.listen(engine, "do_execute", count)
        try:
            for _ in range(20):
                await follower.passed(3)
                follower.beat(1)
        finally:
            for engine in database.engines:
                event.remove(engine, "do_execute", count)
    assert asked == 0


async def test_a_silence_reads_again_what_was_lost_before_it(database: Database) -> None:
    follower = Follower(database)
    follower.change("lost")
    follower.change("heard")
    follower.send(2, "heard")
    follower.beat(2)
    async with follower.running():
        follower.mute()
        await follower.heard.until(lambda: ("lost", 1) in follower.names())


async def test_more_than_a_page_comes_out_of_the_log_and_no_row_that_cannot_be_read_ends_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_feed, "_PAGE", 2)
    follower = Follower(database)
    async with silent(follower):
        for number in range(5):
            scene.broken(database, f"broken{number}")
            follower.change(f"w{number}")
        await follower.heard.version(11)
    assert [name for name, _ in follower.names()][-5:] == [f"w{number}" for number in range(5)]


async def test_with_the_database_away_too_it_goes_on_with_what_is_known(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    follower = Follower(database)
    async with silent(follower):
        follower.change("second")
        with engines.away(database, 10**9):
            await follower.passed(300)
        assert follower.names()[-1] == ("first", 1)
        await follower.heard.version(2)
    assert len([message for message in caplog.messages if "fallback waits for the database" in message]) == 1


async def test_a_database_that_is_being_restored_is_waited_for(
    postgres: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def rename(old: str, new: str) -> None:
        postgres.write_now(lambda connection: connection.exec_driver_sql(f"ALTER TABLE {old} RENAME TO {new}"))

    follower = Follower(postgres)
    async with silent(follower):
        follower.change("second")
        rename("config_version", "before_restore")
        await follower.passed(300)
        assert follower.names()[-1] == ("first", 1)
        rename("before_restore", "config_version")
        await follower.heard.version(2)
    assert len([message for message in caplog.messages if 'relation "config_version" does not exist' in message]) == 1


async def test_who_is_heard_again_is_not_asked_about_in_the_database(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    follower = Follower(database)
    async with silent(follower):
        await follower.passed(15)
        follower.feed._feed._connect = follower.broker.connect
        async with asyncio.timeout(scene.WITHIN_S):
            while "heard again" not in caplog.text:
                await follower.passed(1)
                follower.beat(1)
    said = [message for message in caplog.messages if "relay" in message]
    assert [message.rpartition(": ")[2] for message in said][:2] == [
        "the database is asked for changes",
        "the relay is heard again",
    ]


async def test_before_the_topic_was_read_once_the_log_is_not_enough(database: Database) -> None:
    follower = Follower(database)
    follower.change("a")
    follower.mute()
    follower.send(1, "a")
    async with scene.running(follower.feed.run):
        await follower.passed(120)
        assert follower.heard.changes == []
        assert not follower.feed.is_caught_up


def forget(database: Database, up_to: int) -> None:
    after = START + timedelta(days=365)
    database.write_now(lambda connection: config_log.forget(connection, after, up_to))


async def test_who_knows_less_than_the_log_reads_the_whole_topic_again(database: Database) -> None:
    follower = Follower(database)
    follower.change("kept")
    follower.send(1, "kept")
    follower.change("gone")
    follower.send(2, "gone")
    follower.beat(2)
    async with follower.running():
        follower.mute()
        follower.change("gone", None)
        follower.change("kept", "renamed")
        forget(database, 4)
        # the topic as compaction has left it, its tombstone long gone
        follower.broker.partitions = [[]]
        follower.send(4, "kept", "renamed")
        follower.beat(4)
        await follower.passed(15)
        follower.feed._feed._connect = follower.broker.connect
        await follower.heard.until(lambda: "gone" in follower.heard.state() and ends(follower) == ["gone"])
        assert follower.feed.version == 4
        await follower.passed(60)
    state = follower.heard.state()
    assert state["gone"] == ConfigChange(version=4, kind=ConfigKind.WORKSPACE, id="gone", record=None)
    assert state["kept"].record == scene.workspace("kept", "renamed")
    assert [name for name, _ in follower.names()].count("kept") == 2


def ends(follower: Follower) -> list[str]:
    return [change.id for change in follower.heard.changes if change.record is None]


async def test_a_reload_ends_nothing_that_is_newer_than_what_it_read(database: Database) -> None:
    follower = Follower(database)
    async with silent(follower):
        follower.change("known from the log")
        await follower.heard.version(2)
        follower.feed._begin_reload("a test")
        follower.feed._feed._connect = follower.broker.connect
        await follower.heard.until(lambda: bool(ends(follower)))
    (end,) = [change for change in follower.heard.changes if change.record is None]
    assert (end.id, end.version) == ("known from the log", 1)  # older than the 2 that is held, so it is ignored


async def test_who_heard_nothing_for_longer_than_ends_are_kept_reads_everything_again() -> None:
    follower = Follower(None)
    follower.send(1, "gone")
    follower.send(2, "kept")
    follower.beat(2)
    async with follower.running():
        follower.mute()
        await follower.passed(5 * 86_400 + 60)
        follower.broker.partitions = [[]]
        follower.send(2, "kept")
        follower.beat(3)
        follower.send(4, "new")
        follower.beat(4)
        follower.feed._feed._connect = follower.broker.connect
        await follower.heard.until(lambda: ends(follower) == ["gone"])
    assert follower.heard.state()["gone"].version == 4
