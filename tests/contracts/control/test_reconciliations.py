"""Reconciliations of the console as the store keeps them: one at a time, a week, within its bounds, on both engines."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from control.store.monitoring import reconciliations as store
from control.store.monitoring.reconciliations import Verdict
from runtime import ids
from tests.support import engines
from tests.unit.control.fakes import NOW

DAY = date(2025, 3, 14)


@pytest.fixture(params=engines.ENGINES)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    with engines.made(request.param, request, tmp_path).open() as opened, opened.engine.begin() as begun:
        yield begun


def begun(connection: Connection, age: timedelta) -> str | None:
    id_ = ids.mint(NOW - age)
    return id_ if store.begin(connection, id_, DAY, NOW - age) else None


def test_one_is_under_way_until_it_has_ended_or_its_process_must_have(connection: Connection) -> None:
    lost = begun(connection, store.LOST_AFTER + timedelta(seconds=3))
    first = begun(connection, timedelta(seconds=3))
    assert lost is not None
    assert first is not None
    assert begun(connection, timedelta(seconds=2)) is None
    store.end(connection, first, NOW, Verdict.DIFFERS, "x" * (store.MOST_CHARACTERS + 1))
    second = begun(connection, timedelta(seconds=1))
    newest = store.newest(connection, NOW)
    assert [one.id for one in newest] == [second, first, lost]
    assert [one.is_under_way(NOW) for one in newest] == [True, False, False]
    assert (newest[1].day, newest[1].verdict, newest[1].ended_at) == (DAY, Verdict.DIFFERS, NOW)
    assert newest[1].text == "x" * store.MOST_CHARACTERS + "\n(cut off here)"


def test_they_are_kept_a_week_and_the_newest_alone(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MOST", 2)
    made = []
    for age in (store.KEPT, *(timedelta(hours=hours) for hours in (3, 2, 1))):
        made.append(begun(connection, age))
        store.end(connection, str(made[-1]), NOW, Verdict.AGREES, "")
    assert [one.id for one in store.newest(connection, NOW)] == [made[3], made[2]]
    later = NOW + store.KEPT - timedelta(hours=2)
    assert [store.forget(connection, later, 10) for _ in range(2)] == [1, 0]
    assert [one.id for one in store.newest(connection, later)] == [made[3]]
