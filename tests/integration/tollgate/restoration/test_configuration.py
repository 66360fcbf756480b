"""What a topic knows better than a database that was restored, and that nobody gets in who was shut out since."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from control.store import published, snapshot, units
from runtime import clock
from runtime.config import epochs
from runtime.config import log as config_log
from runtime.config import records as config_records
from runtime.config.newest import Newest
from runtime.database import engines
from runtime.database.engines import Database
from runtime.kafka.feed import FeedRecord
from runtime.kafka.writer import KafkaRecord
from schemas.config import ConfigKind, WorkspaceState
from tests.integration.control import helpers
from tests.integration.control.helpers import Lab
from tollgate.restoration import configuration
from tollgate.restoration.configuration import Found, ToldConfiguration

SLUG = "acme/small"


@dataclass
class Restored:
    """A database as it was when its backup was made, and its topic as it is now."""

    database: Database
    topic: ToldConfiguration

    def bring_together(self) -> Found:
        now = clock.present()
        return self.database.write_now(lambda view: configuration.bring_together(view, self.topic, now))

    def keys(self) -> set[str]:
        live = self.database.read_now(lambda view: list(snapshot.snapshot(view)[1]))
        return {change.id for change in live if change.kind is ConfigKind.KEY}


def taken(record: KafkaRecord) -> FeedRecord:
    return FeedRecord(record.key, record.value, record.headers)


def told(database: Database, *, whole: bool = True) -> ToldConfiguration:
    """Return what a reader of the topic has once the relay has sent everything."""
    topic, now = ToldConfiguration(), clock.present()
    for row in database.read_now(lambda view: config_log.rows_since(view, 0)):
        topic.take(taken(config_records.encode(*row)))
    if whole:
        version = database.read_now(config_log.current_version)
        topic.take(taken(config_records.heartbeat(version, now)))
    return topic


@contextmanager
def copied(database: Database, folder: Path) -> Iterator[Database]:
    """Make a backup of SQLite's file, and open that."""
    url = str(database.engines[0].url.database)
    with closing(sqlite3.connect(url)) as source, closing(sqlite3.connect(folder / "backup.db")) as target:
        source.backup(target)
    with engines.sqlite(folder / "backup.db") as opened:
        yield opened


@pytest.fixture
def lived(sqlite_migrated: Path, tmp_path: Path) -> Iterator[Database]:
    (tmp_path / "tollgate.db").write_bytes(sqlite_migrated.read_bytes())
    with engines.sqlite(tmp_path / "tollgate.db") as opened:
        yield opened


@pytest.fixture
async def lab(lived: Database) -> Any:
    onboarded = helpers.onboard(lived, "acme", "acme")
    app = helpers.application(lived)
    async with helpers.client(app, onboarded.api_key) as client:
        made = Lab(onboarded.workspace_id, onboarded.api_key, client)
        await made.endpoint(SLUG)
        yield made


async def key_of(lab: Lab, group: str) -> str:
    return (await lab.key(group))[:16]


async def test_what_was_made_since_ends_and_what_was_shut_since_stays_shut(
    lived: Database, lab: Lab, tmp_path: Path
) -> None:
    model = {"slug": SLUG}
    kept, root = await lab.made_group("kept", model), await lab.made_group("root", model)
    below = await lab.made_group("below", model, parent_group_id=root["id"])
    stays, revoked, disabled = [await key_of(lab, kept["id"]) for _ in range(3)]
    orphan = await key_of(lab, below["id"])
    with copied(lived, tmp_path) as backup:
        calls = lab.client
        made = await lab.made_group("made since", model)
        made_key = await key_of(lab, made["id"])
        assert (await calls.delete(f"/v1/gateway/groups/{kept['id']}/api_keys/{revoked}")).status_code == 200
        disabling = await calls.patch(f"/v1/gateway/groups/{kept['id']}/api_keys/{disabled}", json={"disabled": True})
        assert disabling.status_code == 200
        assert (await calls.delete(f"/v1/gateway/groups/{root['id']}")).status_code == 200
        assert (await calls.patch(f"/v1/gateway/groups/{kept['id']}", json={"models": []})).status_code == 200
        restored = Restored(backup, told(lived))
        found = restored.bring_together()

        assert found.epoch == 1
        assert found.made_since == {"group": [made["id"]], "key": [made_key]}
        assert set(found.ended_since["key"]) == {revoked, orphan}
        assert root["id"] in found.ended_since["group"]
        assert set(found.closed_again) == {revoked, orphan, disabled}
        assert found.changed_since == {"group": [kept["id"]], "key": [disabled]}
        assert restored.keys() == {stays, disabled}

        follower = Newest[Any]()  # as every reader of the topic compares
        for place, known in restored.topic.live.items():
            follower.put("/".join(place), restored.topic.newest, known)
        rows = backup.read_now(lambda view: config_log.rows_since(view, restored.topic.newest))
        assert {row.id for row in rows if row.record is None} == {made["id"], made_key, revoked, orphan}
        assert all(follower.is_new(f"{row.kind}/{row.id}", row.version) for row in rows)
        version, live = backup.read_now(snapshot_of)
        assert version > restored.topic.newest
        assert all(follower.is_new(f"{change.kind}/{change.id}", change.version) for change in live)
        assert backup.read_now(lambda view: published.read(view, published.CONFIG_END)) == 0, "all is published anew"


def snapshot_of(view: Any) -> Any:
    version, changes = snapshot.snapshot(view)
    return version, list(changes)


async def test_a_workspace_that_was_suspended_stays_so(lived: Database, lab: Lab, tmp_path: Path) -> None:
    with copied(lived, tmp_path) as backup:
        helpers.suspend(lived, lab.id)
        found = Restored(backup, told(lived)).bring_together()
        assert found.closed_again == [lab.id]
        state = backup.read_now(lambda view: units.over(view, clock.present()).workspaces.find(lab.id))
        assert state is not None
        assert state.state is WorkspaceState.SUSPENDED


@pytest.mark.parametrize("known", ["nothing", "not all", "nothing newer"])
async def test_a_topic_that_may_lack_something_ends_nothing(
    lived: Database, lab: Lab, tmp_path: Path, known: str
) -> None:
    group = await lab.made_group("kept", {"slug": SLUG})
    key = await key_of(lab, group["id"])
    with copied(lived, tmp_path) as backup:
        if known != "nothing newer":
            await lab.made_group("made since", {"slug": SLUG})
        topic = ToldConfiguration() if known == "nothing" else told(lived, whole=known != "not all")
        restored = Restored(backup, topic)
        found = restored.bring_together()
        assert (found.made_since, found.ended_since, found.closed_again) == ({}, {}, [])
        assert restored.keys() == {key}
        version = backup.read_now(config_log.current_version)
        assert epochs.of(version) == found.epoch == 1
        assert version > topic.newest


async def test_each_restore_begins_an_epoch_above_the_topics_whatever_the_backup_knew(
    lived: Database, lab: Lab, tmp_path: Path
) -> None:
    with copied(lived, tmp_path) as backup:
        for _ in range(3):
            lived.write_now(lambda view: config_log.raise_epoch(view, 0))
        await lab.made_group("made since", {"slug": SLUG})
        assert Restored(backup, told(lived)).bring_together().epoch == 4


async def test_what_a_newer_release_wrote_is_there_and_unread(lived: Database, lab: Lab, tmp_path: Path) -> None:
    group = await lab.made_group("kept", {"slug": SLUG})
    key = await key_of(lab, group["id"])
    with copied(lived, tmp_path) as backup:
        await lab.made_group("made since", {"slug": SLUG})
        topic = told(lived)
        topic.take(FeedRecord(f"group/{group['id']}".encode(), b'{"record": {"of": "another form"}}'))
        topic.take(FeedRecord(b"kind-to-come/1", b"{}"))
        restored = Restored(backup, topic)
        restored.bring_together()
        assert restored.keys() == {key}
