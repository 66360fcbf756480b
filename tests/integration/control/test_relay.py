import asyncio
from datetime import UTC, datetime

import pytest

from control.store import snapshot
from runtime.config import log as config_log
from runtime.config import relay
from runtime.config.relay import Relay
from runtime.database.engines import Database
from runtime.telemetry.metrics import Telemetry
from schemas.config import ConfigChange, ConfigKind, GroupRecord
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab
from tests.integration.runtime.config import scene
from tests.support import engines
from tests.support.engines import Place

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def append(database: Database, id_: str) -> None:
    database.write_now(lambda connection: config_log.append(connection, NOW, ConfigKind.ENDPOINT, id_, None))


async def test_changes_are_handed_over_in_order_to_everyone(database: Database) -> None:
    first: list[int] = []
    second: list[str] = []
    follower = Relay(
        database, 0, [lambda change: first.append(change.version), lambda change: second.append(change.id)]
    )
    for id_ in ("a", "b", "c"):
        append(database, id_)
    await follower.step()
    assert (first, second) == ([1, 2, 3], ["a", "b", "c"])
    await follower.step()
    assert first == [1, 2, 3]


async def test_it_begins_behind_its_snapshot(database: Database) -> None:
    helpers.onboard(database, "lab", "acme")
    changes: list[ConfigChange] = []
    version = database.read_now(lambda connection: snapshot.load(connection, changes.append))
    assert {change.kind for change in changes} == {ConfigKind.WORKSPACE, ConfigKind.WEBHOOK}
    assert {change.version for change in changes} == {version}
    seen: list[ConfigChange] = []
    follower = Relay(database, version, [seen.append])
    append(database, "later")
    await follower.step()
    assert [change.id for change in seen] == ["later"]


async def test_more_changes_than_one_read_gives_are_all_handed_over(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_BATCH", 2)
    seen: list[ConfigChange] = []
    follower = Relay(database, 0, [seen.append])
    for number in range(5):
        append(database, str(number))
    await follower.step()
    assert [change.version for change in seen] == [1, 2, 3, 4, 5]


async def test_a_change_by_another_process_arrives_by_polling(database: Database, place: Place) -> None:
    arrived: asyncio.Queue[str] = asyncio.Queue()
    follower = Relay(database, 0, [lambda change: arrived.put_nowait(change.id)])
    append(database, "ours")
    running = asyncio.create_task(follower.run())
    assert await asyncio.wait_for(arrived.get(), timeout=60) == "ours"
    with place.open() as elsewhere:
        append(elsewhere, "theirs")
    assert await asyncio.wait_for(arrived.get(), timeout=60) == "theirs"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_it_outlives_an_outage(database: Database) -> None:
    seen: list[ConfigChange] = []

    async def pause(_: float) -> None:
        assert not seen

    append(database, "kept")
    with engines.away(database, 3) as left:
        await Relay(database, 0, [seen.append], pause).step()
    assert left() == 0
    assert [change.id for change in seen] == ["kept"]


async def test_groups_of_one_plan_share_its_models(lab: Lab, database: Database) -> None:
    await lab.endpoint("acme/m")
    limited = {"slug": "acme/m", "usage_limits": [helpers.day_limit(5)]}
    for name in ("first", "second"):
        await lab.made_group(name, limited)
    await lab.made_group("other", {"slug": "acme/m"})
    changes: list[ConfigChange] = []
    database.read_now(lambda connection: snapshot.load(connection, changes.append))
    records = [change.record for change in changes if isinstance(change.record, GroupRecord)]
    by_name = {record.external_entity_id: record.models for record in records}
    assert by_name["first"][0] is by_name["second"][0]
    assert [limit.threshold for limit in by_name["first"][0].usage_limits] == [5]
    assert by_name["other"][0].usage_limits == ()


async def test_the_snapshot_is_what_the_whole_log_adds_up_to(lab: Lab, other: Lab, database: Database) -> None:
    await lab.endpoint("acme/m")
    root = await lab.made_group("root", {"slug": "acme/m", "usage_limits": [helpers.day_limit(5)]})
    await lab.made_group("child", {"slug": "acme/m"}, parent_group_id=root["id"])
    await lab.client.patch(f"/v1/gateway/groups/{root['id']}", json={"models": []})
    await lab.secret("upstream", "sk-1")
    await lab.client.post(f"/v1/gateway/groups/{root['id']}/api_keys", json={})
    price = {"slug": "acme/m", "from": "2026-01-01", "input": "1", "cached_input": "1", "output": "1", "request": "0"}
    (await lab.client.put("/v1/gateway/prices", json=[price | {"currency": "EUR"}])).raise_for_status()
    helpers.suspend(database, other.id)
    log = {(change.kind, change.id): change.record for change in helpers.changes(database)}
    changes: list[ConfigChange] = []
    version = database.read_now(lambda connection: snapshot.load(connection, changes.append))
    assert version == helpers.changes(database)[-1].version
    shown = {(change.kind, change.id): change.record for change in changes}
    assert shown.keys() == log.keys()
    assert {kind for kind, _ in shown} == set(ConfigKind)
    for name, record in shown.items():
        logged = log[name]
        assert record is not None
        assert logged is not None
        assert record.model_dump(mode="json") == logged.model_dump(mode="json")
    order = [change.id for change in changes if change.kind is ConfigKind.GROUP]
    assert order[0] == root["id"]


async def test_a_change_that_cannot_be_read_keeps_no_other_from_being_in_force(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    follower = Relay(database, 0, [lambda change: seen.append(change.id)])
    telemetry = Telemetry()
    follower.register_metrics(telemetry)
    for id_ in ("a", "b"):
        scene.broken(database, id_)
        append(database, f"after {id_}")
    last = scene.broken(database, "c")
    for _ in range(2):
        await follower.step()
    assert (seen, follower.version) == (["after a", "after b"], last)
    assert b"tollgate_config_unreadable_total 3.0" in await telemetry.text()
    assert len([message for message in caplog.messages if "the configuration's log: skipped 1" in message]) == 1


async def test_a_poke_is_not_kept_waiting_for_the_poll(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "POLL_S", 3600.0)
    arrived: asyncio.Queue[str] = asyncio.Queue()
    follower = Relay(database, 0, [lambda change: arrived.put_nowait(change.id)])
    append(database, "first")
    running = asyncio.create_task(follower.run())
    assert await asyncio.wait_for(arrived.get(), timeout=60) == "first"
    append(database, "second")
    follower.poke()
    assert await asyncio.wait_for(arrived.get(), timeout=60) == "second"
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_what_is_in_force_was_handed_over(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "POLL_S", 3600.0)
    monkeypatch.setattr(relay, "IN_FORCE_WITHIN_S", 60.0)
    arrived: list[str] = []
    follower = Relay(database, 0, [lambda change: arrived.append(change.id)])
    running = asyncio.create_task(follower.run())
    for name in ("first", "second", "third"):
        append(database, name)
        await follower.in_force()
        assert arrived[-1] == name
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_change_is_answered_where_no_relay_runs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "IN_FORCE_WITHIN_S", 0.0)
    append(database, "first")
    await Relay(database, 0, []).in_force()


async def test_a_subscriber_that_fails_ends_the_relay(database: Database) -> None:
    def fail(_: ConfigChange) -> None:
        raise LookupError("a bug")

    append(database, "a")
    with pytest.raises(LookupError):
        await asyncio.wait_for(Relay(database, 0, [fail]).run(), timeout=60)
