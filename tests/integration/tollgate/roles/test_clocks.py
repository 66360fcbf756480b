"""Control and the commands go by the dispatchers' clock, however far off their own machine's is (contract 2.5)."""

import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import insert, select

from runtime import clock
from runtime.database import engines as databases
from runtime.database.engines import Database
from runtime.settings import Settings
from tests.integration.control import helpers
from tests.unit.webhooks import kit
from tollgate.cli.main import tollgate
from tollgate.roles import control
from webhooks.core.deliveries import Status
from webhooks.store import tables

BEHIND = timedelta(minutes=5)
MASTER_KEY = base64.b64encode(bytes(32)).decode()


@dataclass
class Desk:
    """A lab on PostgreSQL with one delivery that died a minute ago, by the database's clock."""

    database: Database
    lab: str
    api_key: str

    def now(self) -> datetime:
        return self.database.read_now(lambda connection: databases.now(connection, kit.HandClock()))

    def lose(self, delivery_id: str) -> None:
        died_at = self.now() - timedelta(minutes=1)
        row = {
            "id": delivery_id,
            "workspace_id": self.lab,
            "status": Status.DEAD.value,
            "reason": "answered 410",
            "body": b"{}",
            "event_count": 1,
            "created_at": died_at,
            "settled_at": died_at,
        }
        self.database.write_now(lambda connection: connection.execute(insert(tables.DELIVERY), [row]))

    def due_at(self, delivery_id: str) -> datetime | None:
        columns = tables.DELIVERY.c
        query = select(columns.claimable_at).where(columns.id == delivery_id)
        due_at: datetime | None = self.database.read_now(lambda connection: connection.execute(query).scalar_one())
        return due_at

    def is_due(self, delivery_id: str) -> bool:
        due_at = self.due_at(delivery_id)
        return due_at is not None and abs(self.now() - due_at) < timedelta(minutes=1)


@pytest.fixture
def desk(postgres: Database, postgres_migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """The machine's own clock is BEHIND."""
    made = helpers.onboard(postgres, "lab", "lab")
    for name, value in (("DATABASE_URL", postgres_migrated_url), ("MASTER_KEY", MASTER_KEY)):
        monkeypatch.setenv(f"TOLLGATE_{name}", value)

    def late() -> float:
        return time.time() - BEHIND.total_seconds()

    def steady(source: Callable[[], float] = late, passing: clock.Steady = time.monotonic, whole=clock.steady):  # type: ignore[no-untyped-def]
        return whole(source, passing)

    monkeypatch.setattr(clock, "steady", steady)
    monkeypatch.setattr(clock, "present", lambda: datetime.fromtimestamp(late(), UTC))
    return Desk(postgres, made.workspace_id, made.api_key)


@pytest.fixture
async def client(desk: Desk, postgres_migrated_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """The management API as `serve control` makes it."""
    loaded = Settings(database_url=postgres_migrated_url, kafka_bootstrap="127.0.0.1:1", master_key=MASTER_KEY)
    with ExitStack() as closing:
        role = control.prepare(loaded, closing)()
        public = role.public({})
        assert public is not None
        async with helpers.client(public, desk.api_key) as made:
            yield made


async def test_a_redrive_takes_what_died_a_moment_ago(desk: Desk, client: httpx.AsyncClient) -> None:
    desk.lose("one")
    answer = await client.post("/v1/gateway/deliveries/redrive", json={})
    assert answer.json() == {"count": 1}
    assert desk.is_due("one")


async def test_a_redelivery_is_due_at_once(desk: Desk, client: httpx.AsyncClient) -> None:
    desk.lose("one")
    assert (await client.post("/v1/gateway/deliveries/one/redeliver")).status_code == 200
    assert desk.is_due("one")


async def test_a_rotated_secret_signs_as_long_as_it_was_told(desk: Desk, client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/gateway/billing_webhook/rotate_secret", json={"overlap_seconds": 600})
    ends_at = datetime.fromisoformat(answer.json()["previous_expires_at"])
    assert abs(ends_at - desk.now() - timedelta(minutes=10)) < timedelta(minutes=1)


def run(*words: str) -> dict[str, object]:
    result: Result = CliRunner().invoke(tollgate, [*words, "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_the_commands_go_by_it_as_well(desk: Desk) -> None:
    desk.lose("one")
    assert run("dead-letters", "redrive", "--workspace", "lab") == {"workspace_id": desk.lab, "count": 1}
    assert desk.is_due("one")
    rotated = run("workspace", "rotate-secret", "--workspace", "lab", "--overlap", "600")
    ends_at = datetime.fromisoformat(str(rotated["previous_expires_at"]))
    assert abs(ends_at - desk.now() - timedelta(minutes=10)) < timedelta(minutes=1)
