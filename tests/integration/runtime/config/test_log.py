from datetime import UTC, datetime, timedelta

from pydantic import ValidationError
from sqlalchemy import insert

from runtime.config import log as config_log
from runtime.config.log import CONFIG_CHANGE, ChangesRead
from runtime.config.newer import LeftOutError
from runtime.database.engines import Database
from schemas.config import GroupRecord
from schemas.limits import LimitType
from tests.integration.runtime.config import scene

START = datetime(2026, 1, 1, tzinfo=UTC)


class Skipped:
    """What a reader could not read, or not as a whole."""

    def __init__(self) -> None:
        self.told: list[tuple[str, type[Exception]]] = []

    def __call__(self, place: str, error: Exception) -> None:
        self.told.append((place, type(error)))


def read(database: Database, version: int, skipped: Skipped, limit: int = 1000) -> ChangesRead:
    return database.read_now(lambda connection: config_log.read_since(connection, version, skipped, limit))


def test_kinds_of_a_newer_version_are_left_out_and_fill_no_page(database: Database) -> None:
    rows = [
        {"version": number, "kind": "quota", "id": "q", "record": {"much": 1}, "created_at": START}
        for number in range(1, 4)
    ]
    database.write_now(lambda connection: connection.execute(insert(CONFIG_CHANGE), rows))
    database.write_now(
        lambda connection: connection.execute(config_log.CONFIG_VERSION.update().values(version=len(rows)))
    )
    scene.change(database, "a")
    skipped = Skipped()
    (change,), newest = read(database, 0, skipped, 2)
    assert (change.version, newest, skipped.told) == (4, 4, [])
    raw = database.read_now(lambda connection: config_log.rows_since(connection, 0))
    assert [row.kind for row in raw] == ["quota"] * 3 + ["workspace"]


def test_where_the_log_begins_and_what_was_written_when(database: Database) -> None:
    assert database.read_now(config_log.oldest_version) is None
    assert database.read_now(lambda connection: config_log.version_before(connection, START)) == 0
    for minute in range(3):
        scene.change(database, f"w{minute}", at=START + timedelta(minutes=minute))
    moment = START + timedelta(minutes=2)
    assert database.read_now(lambda connection: config_log.version_before(connection, moment)) == 2
    assert database.read_now(config_log.oldest_version) == 1
    assert database.write_now(lambda connection: config_log.forget(connection, moment, 1)) == 1
    assert database.read_now(config_log.oldest_version) == 2
    assert database.write_now(lambda connection: config_log.forget(connection, moment, 99)) == 1
    assert database.read_now(config_log.oldest_version) == 3


def test_a_limit_of_a_newer_version_is_left_out_of_its_group_and_told(
    database: Database,
) -> None:
    limits = [{"type": type_, "unit": "DAY", "threshold": 5} for type_ in ("NEWER", "TOKEN")]
    group = {
        "id": "g",
        "workspaceId": "w",
        "externalEntityId": "customer",
        "parentGroupId": None,
        "ancestorIds": [],
        "limitEnforcement": "INDEPENDENT",
        "models": [{"slug": "a/b", "usage_limits": limits}],
    }
    row = {"version": 1, "kind": "group", "id": "g", "record": group, "created_at": START}
    database.write_now(lambda connection: connection.execute(insert(CONFIG_CHANGE), [row]))
    skipped = Skipped()
    (change,), _ = read(database, 0, skipped)
    assert isinstance(change.record, GroupRecord)
    assert [limit.type for limit in change.record.models[0].usage_limits] == [LimitType.TOKEN]
    assert skipped.told == [("version 1 of a group", LeftOutError)]


def test_a_row_that_cannot_be_read_is_told_and_keeps_no_other_from_being_read(database: Database) -> None:
    scene.change(database, "first")
    broken = scene.broken(database, "second")
    scene.change(database, "third")
    last = scene.broken(database, "fourth")
    skipped = Skipped()
    changes, newest = read(database, 0, skipped)
    assert ([change.id for change in changes], newest) == (["first", "third"], last)
    assert skipped.told == [(f"version {version} of a workspace", ValidationError) for version in (broken, last)]
    assert read(database, last, skipped) == ([], last)
    assert read(database, broken - 1, skipped, 1) == ([], broken)
