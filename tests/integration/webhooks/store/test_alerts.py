"""Usage alerts as metering keeps them and the dispatcher tells of them: each once, on both engines (contract 2.5)."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select

from metering.core.alerts import Alert
from metering.store import alerts as kept
from metering.store import retention
from metering.store.alerts import USAGE_ALERT, SqlAlerts
from runtime.database import engines as databases
from runtime.database.engines import Database
from schemas.delivery import AlertBody, UsageAlert
from schemas.limits import LimitType, UsageLimitUnit
from tests.integration.webhooks.store import alerting_process
from tests.unit.webhooks import kit
from webhooks.core.deliveries import AlertDraft, Receiver, Status
from webhooks.flow.alerts import DELIVERY_SIZE, AlertIntake
from webhooks.store import alerts as stored
from webhooks.store import deliveries
from webhooks.store.alerts import StoredAlertDeliveries
from webhooks.store.tables import DELIVERY

NOW = kit.START
TODAY = NOW.date()


def alert(number: int, workspace_id: str = "ws", *, days_ago: int = 0) -> Alert:
    of = (workspace_id, f"group-{number:04}", "acme", "lab/model")
    day = TODAY - timedelta(days=days_ago)
    return Alert(f"alert-{number}", *of, LimitType.TOKEN, UsageLimitUnit.MONTH, 1000, 80, day, 801)


def keep(database: Database, *found: Alert) -> None:
    database.write_now(lambda connection: kept.keep(connection, found, NOW))


class Receivers:
    """Everyone has a receiver but `nowhere`."""

    def receiver(self, workspace_id: str, _now: object) -> Receiver:
        url = None if workspace_id == "nowhere" else "https://lab.example"
        return Receiver(url, enabled=True, secrets=(kit.SECRET,))


def intake(database: Database, ids: str = "delivery") -> AlertIntake:
    numbers = iter(range(10_000))
    made = StoredAlertDeliveries(database, SqlAlerts())
    return AlertIntake(made, Receivers(), lambda: NOW, lambda: f"{ids}-{next(numbers)}", asyncio.Event())


def found_deliveries(database: Database) -> list[tuple[str, str, int, list[str]]]:
    """Return workspace, status, count of events and the alerts' ids of each delivery."""
    rows = database.read_now(lambda connection: connection.execute(select(DELIVERY).order_by(DELIVERY.c.id)).all())
    bodies = [AlertBody.model_validate_json(row.body) for row in rows]
    return [
        (row.workspace_id, row.status, row.event_count, [one.id for one in body.data.alerts])
        for row, body in zip(rows, bodies, strict=True)
    ]


async def test_each_alert_is_in_one_delivery_of_its_workspace(database: Database) -> None:
    keep(database, alert(1), alert(2), alert(3, "nowhere"))
    keep(database, alert(1)._replace(used=999))
    await intake(database).take_in()
    await intake(database, "again").take_in()
    assert found_deliveries(database) == [
        ("nowhere", Status.NOT_DUE.value, 0, ["alert-3"]),
        ("ws", Status.PENDING.value, 0, ["alert-1", "alert-2"]),
    ]
    body = database.read_now(lambda view: view.execute(select(DELIVERY.c.body).where(DELIVERY.c.workspace_id == "ws")))
    first = json.loads(body.scalar_one())["data"]["alerts"][0]
    assert first == {
        "id": "alert-1",
        "groupId": "group-0001",
        "externalEntityId": "acme",
        "modelSlug": "lab/model",
        "limit": {"type": "TOKEN", "unit": "MONTH", "threshold": 1000},
        "share": 80,
        "used": 801,
        "resetAt": "2026-02-01T00:00:00.000Z",
    }
    assert database.read_now(lambda view: deliveries.tallies(view, TODAY, TODAY)) == [], "it bills nothing"


async def test_many_are_cut_into_deliveries_of_a_bounded_size(database: Database) -> None:
    keep(database, *(alert(number) for number in range(2 * DELIVERY_SIZE + 1)))
    await intake(database).take_in()
    sizes = [len(ids) for *_, ids in found_deliveries(database)]
    assert sorted(sizes) == [1, DELIVERY_SIZE, DELIVERY_SIZE]


async def test_of_two_dispatchers_one_tells_of_an_alert_and_neither_waits(postgres: Database) -> None:
    keep(postgres, alert(1))

    def meanwhile(found: Sequence[tuple[str, UsageAlert]]) -> list[AlertDraft]:
        assert len(found) == 1
        other = postgres.write_now(lambda view: stored.enqueue_alerts(view, SqlAlerts(), lambda _: [], 10, NOW))
        assert other == 0, "locked, so left out"
        ids = tuple(one.id for _, one in found)
        return [AlertDraft("delivery", "ws", Status.PENDING, ids, b"{}")]

    assert postgres.write_now(lambda view: stored.enqueue_alerts(view, SqlAlerts(), meanwhile, 10, NOW)) == 1
    assert postgres.write_now(lambda view: stored.enqueue_alerts(view, SqlAlerts(), lambda _: [], 10, NOW)) == 0


def test_alerts_go_with_the_limit_totals_that_they_are_of(database: Database) -> None:
    keep(database, alert(1), alert(2, days_ago=retention.LIMIT_DAYS), alert(3, days_ago=retention.LIMIT_DAYS - 1))
    step = retention.steps(TODAY, 100, ())["usage alerts"]
    assert database.write_now(step) == 1

    def left(connection: Connection) -> int:
        return connection.execute(select(func.count()).select_from(USAGE_ALERT)).scalar_one()

    assert database.read_now(left) == 2


@pytest.mark.parametrize("step", alerting_process.STEPS)
def test_a_kill_at_any_step_loses_no_alert_and_doubles_none(sqlite_migrated: Path, tmp_path: Path, step: str) -> None:
    file = tmp_path / "tollgate.db"
    file.write_bytes(sqlite_migrated.read_bytes())
    command = [sys.executable, "-m", alerting_process.__name__, str(file)]
    killed = subprocess.run([*command, step], check=False)
    assert killed.returncode == -9, "it came to the step, and was killed there"
    ended = subprocess.run([*command, "none"], check=False)
    assert ended.returncode == 0
    with databases.sqlite(file) as database:
        (only,) = found_deliveries(database)
    assert only[1:3] == (Status.PENDING.value, 0)
    assert len(only[3]) == 1
