"""A topic that is new, was lost, or was filled in part gets all that is live."""

import asyncio
from collections.abc import Sequence

import pytest

from control.topic import publisher
from runtime.config.log import CONFIG_CHANGE
from runtime.database.engines import Database
from runtime.kafka.writer import KafkaAwayError, KafkaRecord
from schemas.topics import GATEWAY_CONFIG
from tests.integration.control import helpers
from tests.integration.runtime.config import scene
from tests.integration.runtime.config.kit import Scene


async def test_an_empty_topic_gets_all_that_is_live(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "_BATCH", 2)
    labs = [helpers.onboard(database, name, name) for name in ("acme", "globex", "initech")]
    forget_the_log(database)
    begun = Scene(database)
    await begun.begin()
    assert {change.id for change in begun.topics.changes()} == {lab.workspace_id for lab in labs}
    assert {change.kind.value for change in begun.topics.changes()} == {"workspace", "webhook"}
    begun.topics.forget()
    await begun.begin()
    assert begun.topics.config() == []


def forget_the_log(database: Database) -> None:
    """Remove the changes, as if they were older than 48 hours."""
    database.write_now(lambda connection: connection.execute(CONFIG_CHANGE.delete()))


@pytest.mark.parametrize("was_full", [False, True])
async def test_a_topic_that_was_filled_in_part_is_filled_again(database: Database, was_full: bool) -> None:
    helpers.onboard(database, "acme", "acme")
    forget_the_log(database)
    begun = Scene(database)
    if was_full:
        await begun.begin()
        begun.topics.end = 0
        begun.topics.forget()
    begun.topics.refuses = lambda record: KafkaAwayError("away") if record.key.startswith(b"webhook/") else None
    with pytest.raises(KafkaAwayError):
        await begun.begin()
    begun.topics.end = 1000  # records there are, but not all
    begun.topics.refuses = lambda record: None
    await begun.begin()
    assert {change.kind.value for change in begun.topics.changes()} == {"workspace", "webhook"}


async def test_a_topic_lost_while_it_leads_is_filled_again_with_what_ended_first(begun: Scene) -> None:
    lab = helpers.onboard(begun.database, "acme", "acme")
    begun.change("gone")
    await begun.step()
    begun.topics.forget()
    begun.topics.end = 0
    begun.topics.refuses = lambda record: KafkaAwayError("away")
    begun.change("gone", None)
    with pytest.raises(KafkaAwayError):
        await begun.step()
    begun.topics.refuses = lambda record: None
    await begun.begin()
    changes = begun.topics.changes()
    ends = [place for place, change in enumerate(changes) if (change.id, change.record) == ("gone", None)]
    lives = [place for place, change in enumerate(changes) if (change.id, change.version) == (lab.workspace_id, 4)]
    assert min(ends) < min(lives)
    assert {change.version for change in changes if change.id == "gone"} == {3, 4}


async def test_a_shorter_topic_is_noticed_by_who_leads(begun: Scene) -> None:
    lab = helpers.onboard(begun.database, "acme", "acme")
    await begun.step()
    begun.time.now += 3600
    await begun.step()
    begun.topics.forget()
    begun.topics.end = 3
    await begun.step(after_s=3)
    assert begun.topics.written[-1][1].key == b"heartbeat"
    assert lab.workspace_id in {change.id for change in begun.topics.changes()}


async def test_a_relay_that_is_stopped_while_it_publishes_everything_leaves_no_thread_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_BATCH", 1)
    for name in ("acme", "globex", "initech"):
        helpers.onboard(database, name, name)
    forget_the_log(database)
    begun = Scene(database)
    begun_to_write, may_go_on = asyncio.Event(), asyncio.Event()
    write = begun.topics.write
    ended_before: list[bool] = []

    async def slow_write(topic: str, records: Sequence[KafkaRecord]) -> None:
        begun_to_write.set()
        await may_go_on.wait()
        ended_before.append(running.done())
        await write(topic, records)

    begun.topics.write = slow_write  # type: ignore[method-assign]
    running = asyncio.create_task(begun.relay.run())
    async with asyncio.timeout(scene.WITHIN_S):
        await begun_to_write.wait()
    running.cancel()
    for _ in range(100):  # more turns than an end takes that waits for no thread
        await asyncio.sleep(0)
    may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended_before == [False], "the page under way is waited for, and none follows it"
    assert len(begun.topics.written) == 1


async def test_a_page_that_takes_too_long_is_given_up_before_the_next_attempt(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_PAGE_WITHIN_S", 0.05)
    helpers.onboard(database, "acme", "acme")
    forget_the_log(database)
    begun = Scene(database)
    ended: list[str] = []

    async def never(topic: str, records: Sequence[KafkaRecord]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(topic)

    begun.topics.write = never  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        await begun.relay.take_over()
    assert ended == [GATEWAY_CONFIG]
