"""What processes told, as the store keeps it: minutes for a day, hours for 35 days, within bounds, on both engines."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from control.store.monitoring import status
from control.store.monitoring.status import CallDimension, LagPoint, Unit
from schemas.monitoring.status import Stage
from tests.support import engines
from tests.support.statuses import calls, minute
from tests.support.statuses import status as told
from tests.unit.control.fakes import NOW

HOUR = NOW.replace(minute=0, second=0, microsecond=0) - timedelta(hours=3)


@pytest.fixture(params=engines.ENGINES)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Connection]:
    with engines.made(request.param, request, tmp_path).open() as opened, opened.engine.begin() as begun:
        yield begun


def at(minutes: int) -> timedelta:
    return timedelta(minutes=minutes)


def test_of_each_process_the_newest_is_shown_whatever_comes_late(connection: Connection) -> None:
    status.keep(connection, [])
    newer, older = told("p", NOW, problem="spool: full"), told("p", NOW - at(1))
    status.keep(connection, [told("q", NOW, role="metering"), newer])
    status.keep(connection, [older])
    assert [(one.process, one.problem, one.at) for one in status.processes(connection)] == [
        ("q", None, NOW),
        ("p", "spool: full", NOW),
    ]
    assert status.processes(connection)[1].loops == newer.loops
    status.bound(connection, most_processes=2)
    assert len(status.processes(connection)) == 2


def test_a_minute_is_counted_once_and_processes_are_added_up(connection: Connection) -> None:
    of_p = told("p", NOW, minute(HOUR, calls("w", complete=2), calls("v", failed=1), publishing=4, feedback=2.5))
    of_q = told("q", NOW, minute(HOUR, calls("w", complete=3, refused=1), publishing=1, feedback=9))
    status.keep(connection, [of_p, of_q])
    status.keep(connection, [of_p])
    assert status.lags(connection, Unit.MINUTE, HOUR) == [
        LagPoint(HOUR, Stage.FEEDBACK, 9),
        LagPoint(HOUR, Stage.PUBLISHING, 5),
    ]
    points = status.calls(connection, Unit.MINUTE, HOUR, [CallDimension.WORKSPACE])
    assert [(one.start, one.counts.workspace_id, one.counts.slug, one.counts.outcomes) for one in points] == [
        (HOUR, "v", "", {"failed": 1}),
        (HOUR, "w", "", {"complete": 5, "refused": 1}),
    ]
    assert points[1].counts.whole.counts[1] == 6
    assert points[1].counts.own.sum_s == pytest.approx(0.012)
    [all_together] = status.calls(connection, Unit.MINUTE, HOUR, [])
    assert all_together.counts.outcomes == {"complete": 5, "refused": 1, "failed": 1}
    [own] = status.calls(connection, Unit.MINUTE, HOUR, [CallDimension.SLUG], "v")
    assert (own.counts.slug, own.counts.outcomes) == ("a/b", {"failed": 1})
    assert status.calls(connection, Unit.MINUTE, HOUR + at(1), []) == []


def test_hours_are_the_same_before_and_after_they_are_summed(connection: Connection) -> None:
    for number in (0, 59, 60):
        start = HOUR + at(number)
        some = minute(start, calls("w", complete=number + 1), calls("w", "a/c", failed=1), counting=number)
        status.keep(connection, [told("p", NOW, some)])
    asked = (connection, Unit.HOUR, HOUR)

    def seen() -> tuple[object, object]:
        return status.lags(*asked), status.calls(*asked, [CallDimension.WORKSPACE, CallDimension.SLUG])

    before = seen()
    assert before[0] == [LagPoint(HOUR, Stage.COUNTING, 59), LagPoint(HOUR + at(60), Stage.COUNTING, 60)]
    status.sum_hours(connection, HOUR + at(79))
    status.sum_hours(connection, HOUR + at(81))
    assert seen() == before
    status.sum_hours(connection, NOW)
    status.sum_hours(connection, NOW)
    assert seen() == before
    assert status.forget(connection, HOUR + timedelta(days=2), 100) == 7, "three minutes' lags and calls, a process"
    assert seen() == before
    assert status.lags(connection, Unit.MINUTE, HOUR) == []
    assert status.forget(connection, HOUR + timedelta(days=35, hours=2), 3) == 3
    assert status.forget(connection, HOUR + timedelta(days=35, hours=2), 100) == 1
    assert seen() == ([], [])


def test_the_oldest_go_beyond_the_bounds(connection: Connection) -> None:
    some = [
        told(f"p{number}", NOW + at(number), minute(HOUR + at(number), calls("w", complete=1))) for number in range(4)
    ]
    status.keep(connection, some)
    status.bound(connection, most_calls=4, most_processes=4)
    assert len(status.calls(connection, Unit.MINUTE, HOUR, [])) == len(status.processes(connection)) == 4
    status.bound(connection, most_calls=3, most_processes=2)
    assert [one.start for one in status.calls(connection, Unit.MINUTE, HOUR, [])] == [HOUR + at(n) for n in (1, 2, 3)]
    assert [one.process for one in status.processes(connection)] == ["p2", "p3"]
