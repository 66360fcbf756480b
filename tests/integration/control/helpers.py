"""A management API over a real SQLite file, and labs that use it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx
from litestar import Litestar
from sqlalchemy import insert

from control import app as control_app
from control import credentials
from control.core.records import AuditEntry, Scope
from control.flow import workspaces
from control.store import audit, tables, units
from runtime import clock
from runtime.config import log as config_log
from runtime.database.engines import Database
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.config import ConfigChange, WorkspaceState

VAULT = Vault(bytes(32))
BASE = "http://gateway.test"


@dataclass
class Lab:
    """A workspace and a client that carries its management key."""

    id: str
    api_key: str
    client: httpx.AsyncClient

    async def endpoint(self, slug: str, **target: Any) -> dict[str, Any]:
        answer = await self.client.post("/v1/gateway/endpoints", json=endpoint_body(slug, **target))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def secret(self, name: str, value: str) -> str:
        answer = await self.client.post("/v1/secrets", json={"name": name, "value": value})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def key(self, group_id: str) -> str:
        answer = await self.client.post(f"/v1/gateway/groups/{group_id}/api_keys", json={})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["api_key"])

    async def group(self, external_id: str, *models: Mapping[str, Any], **hierarchy: Any) -> httpx.Response:
        body = {"metadata": {"external_entity_id": external_id}, "models": models, "hierarchy": hierarchy}
        return await self.client.post("/v1/gateway/groups", json=body)

    async def made_group(self, external_id: str, *models: Mapping[str, Any], **hierarchy: Any) -> dict[str, Any]:
        answer = await self.group(external_id, *models, **hierarchy)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


def endpoint_body(slug: str, **target: Any) -> dict[str, Any]:
    given = {"provider": "OPENAI_COMPATIBLE", "base_url": "https://up.example/v1", "target_model": "m"} | target
    return {"slug": slug, "targets": [given]}


def day_limit(threshold: int, type_: str = "TOKEN") -> dict[str, Any]:
    return {"type": type_, "unit": "DAY", "threshold": threshold}


async def at_once() -> None:
    """Stand for a relay: no other part hears of a change here."""


class Current:
    """Stands for the database of the test that runs, so that its application need not be built anew (50 ms of CPU)."""

    def __init__(self) -> None:
        self.database: Database
        self.in_force: Callable[[], Awaitable[None]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)

    async def changed(self) -> None:
        await self.in_force()


_BUILT: dict[tuple[tuple[str, Any], ...], tuple[Litestar, Current]] = {}
"""By settings: the applications of this process, one test's after the other's."""


def application(database: Database, in_force: Callable[[], Awaitable[None]] = at_once, **settings: Any) -> Litestar:
    """Return an application over a database. A test has one of the same settings."""
    named = tuple(sorted(settings.items()))
    if named not in _BUILT:
        current = Current()
        stand_in = cast("Database", current)
        router = control_app.build(
            control_app.desk(stand_in, VAULT, clock.steady(), Settings(**settings), current.changed)
        )
        openapi = control_app.openapi_config("0.1.0")
        handlers = control_app.UNROUTED
        app = Litestar([router], openapi_config=openapi, exception_handlers=handlers, logging_config=None)
        _BUILT[named] = app, current
    app, current = _BUILT[named]
    current.database, current.in_force = database, in_force
    return app


def client(app: Litestar, api_key: str | None = None) -> httpx.AsyncClient:
    headers = {"authorization": f"Api-Key {api_key}"} if api_key else {}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=BASE, headers=headers)  # type: ignore[arg-type]


def onboard(database: Database, name: str, org_prefix: str) -> workspaces.Onboarded:
    now = clock.steady()()
    return database.write_now(
        lambda connection: workspaces.create(
            units.over(connection, now), VAULT, name=name, org_prefix=org_prefix, operator_credential=False
        )
    )


def audited(database: Database) -> list[AuditEntry]:
    return list(database.read_now(lambda connection: audit.newest(connection, None, 1000)))


def changes(database: Database) -> list[ConfigChange]:
    def refuse(place: str, error: Exception) -> None:
        raise AssertionError(place) from error

    return list(database.read_now(lambda connection: config_log.read_since(connection, 0, refuse)).changes)


def add_read_key(database: Database, workspace_id: str) -> str:
    key = credentials.mint_management_key()
    values = {
        "prefix": credentials.prefix(key),
        "workspace_id": workspace_id,
        "sha256": credentials.digest(key),
        "scope": Scope.READ.value,
        "created_at": clock.steady()(),
    }
    database.write_now(lambda connection: connection.execute(insert(tables.MANAGEMENT_KEYS).values(values)))
    return key


def suspend(database: Database, workspace_id: str) -> None:
    now = clock.steady()()
    state = WorkspaceState.SUSPENDED
    database.write_now(lambda connection: workspaces.set_state(units.over(connection, now), workspace_id, state))
