"""Requests that were refused or failed, as the store keeps them: a day, within its bounds, on both engines."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from control.store import requests
from runtime import ids
from schemas.monitoring.requests import RequestRecord
from tests.support import engines, request_records
from tests.unit.control.fakes import NOW


@pytest.fixture(params=engines.ENGINES)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    with engines.made(request.param, request, tmp_path).open() as opened, opened.engine.begin() as begun:
        yield begun


def record(age_s: float, workspace_id: str | None = "lab") -> RequestRecord:
    return request_records.refused(NOW - timedelta(seconds=age_s), workspace_id, "share_exceeded")


def kept(connection: Connection, records: list[RequestRecord]) -> list[bool]:
    return [requests.find(connection, each.request_id) == each for each in records]


def test_each_is_kept_once_for_a_day(connection: Connection) -> None:
    old, new, unowned = record(24 * 3600 + 1), record(24 * 3600 - 1), record(5, None)
    requests.add(connection, [])
    requests.add(connection, [old, new])
    requests.add(connection, [new.model_copy(update={"reason": "another"}), unowned])
    assert kept(connection, [old, new, unowned]) == [True, True, True]
    assert requests.find(connection, ids.uuid7(NOW)) is None
    assert [requests.forget(connection, NOW, 10) for _ in range(2)] == [1, 0]
    assert kept(connection, [old, new, unowned]) == [False, True, True]


def test_the_oldest_of_a_workspace_go_then_the_oldest_of_all(connection: Connection) -> None:
    labs = [record(age) for age in (50, 40, 30, 20)]
    others = [record(age, "other") for age in (45, 35)]
    requests.add(connection, [*labs, *others])
    requests.bound(connection, most=6, most_of_workspace=4)
    assert kept(connection, [*labs, *others]) == [True] * 6
    requests.bound(connection, most=6, most_of_workspace=3)
    assert kept(connection, [*labs, *others]) == [False, True, True, True, True, True]
    requests.bound(connection, most=3, most_of_workspace=3)
    assert kept(connection, [*labs, *others]) == [False, False, True, True, False, True]


def test_a_position_is_moved_from_where_it_was_seen_alone(connection: Connection) -> None:
    assert requests.taken(connection, "topic") == {}
    assert requests.move(connection, "topic", 3, None, 7)
    assert not requests.move(connection, "topic", 3, None, 9)
    assert requests.move(connection, "topic", 3, 7, 9)
    assert not requests.move(connection, "topic", 3, 7, 11)
    assert requests.taken(connection, "topic") == {3: 9}
