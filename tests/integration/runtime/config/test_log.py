from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert

from runtime.config import log as config_log
from runtime.config.log import CONFIG_CHANGE
from runtime.database.engines import Database
from schemas.config import GroupRecord
from schemas.limits import LimitType
from tests.integration.runtime.config import scene

START = datetime(2026, 1, 1, tzinfo=UTC)


def read(database: Database, version: int, limit: int) -> list[int]:
    changes = database.read_now(lambda connection: config_log.read_since(connection, version, limit))
    return [change.version for change in changes]


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
    assert read(database, 0, 2) == [4]
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
    database: Database, caplog: pytest.LogCaptureFixture
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
    (change,) = database.read_now(lambda connection: config_log.read_since(connection, 0))
    assert isinstance(change.record, GroupRecord)
    assert [limit.type for limit in change.record.models[0].usage_limits] == [LimitType.TOKEN]
    assert "g: record.models.0.usage_limits.0" in caplog.text
