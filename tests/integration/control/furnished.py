"""A lab that has one of everything, and a well-formed call of every operation of the served description."""

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar import Litestar
from sqlalchemy import insert

from control import app as control_app
from control.flow import workspaces
from control.store import units
from metering.store import transaction
from runtime.clock import steady
from runtime.database.engines import Database
from runtime.settings import Settings
from schemas.base import rfc3339
from tests.integration.control import helpers
from tests.integration.control.helpers import VAULT, Lab
from tests.integration.control.rows import keep, row
from tests.unit.metering.factories import NOON, HandClock, batch, correction, event
from tests.unit.webhooks import kit
from webhooks.store.tables import ATTEMPT

Json = Mapping[str, Any]
SLUG = "acme/m"
REQUEST = "01955193-de00-7d6a-9002-d56466521c79"
"""Of the ledger's NOON."""
DELIVERY = "delivery-1"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PEM = PRIVATE.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
LIMITS = {
    "rate_limits": [{"type": "TOKEN", "unit": "MINUTE", "threshold": 5}],
    "usage_limits": [helpers.day_limit(7, "REQUEST")],
}
PRICE_LIST: list[Json] = [
    {
        "slug": SLUG,
        "external_entity_id": None,
        "from": "2025-01-01",
        "currency": "EUR",
        "input": "0.15",
        "cached_input": "0.075",
        "output": "0.6",
        "request": "0.001",
    }
]
BODIES: Mapping[str, Json | list[Json]] = {
    "create_endpoint": helpers.endpoint_body("acme/new") | {"region": "EU"},
    "update_endpoint": {"slug": "acme/renamed", "targets": helpers.endpoint_body("")["targets"]},
    "create_group": {
        "metadata": {"external_entity_id": "cust-new", "name": "New"},
        "models": [{"slug": SLUG, **LIMITS}],
        "hierarchy": {"limit_enforcement": "CASCADING", "parent_group_id": None},
    },
    "update_group": {"metadata": {"name": "Renamed"}, "models": [{"slug": SLUG, **LIMITS}]},
    "create_api_key": {"name": "prod"},
    "create_api_keys": {"items": [{"name": "a"}, {"expires_at": "2027-01-01T00:00:00.000Z"}]},
    "update_api_key": {"name": "prod", "disabled": False, "metadata": None},
    "rotate_api_key": {"overlap_seconds": 60},
    "register_api_key": {"key": "abcdefghijklmnop-0123456789.ABCDEF", "name": "own"},
    "save_secret": {"name": "another", "value": "sk-2"},
    "update_billing_webhook": {"url": "http://127.0.0.1:9/hook", "enabled": True},
    "set_prices": PRICE_LIST,
    "rotate_webhook_secret": {"overlap_seconds": 60},
    "redrive_deliveries": {"from": "2026-01-01T00:00:00.000Z", "to": None},
}
"""By operation id."""

QUERIES: Mapping[str, Mapping[str, str]] = {
    "list_events": {"start_time": rfc3339(NOON)},
    "get_usage": {"from": "2025-03-01", "to": "2025-03-01", "group_by": "day,customer,model,group"},
}
_ORDER = ("PUT", "POST", "GET", "PATCH", "DELETE")


@dataclass(frozen=True)
class Call:
    """One operation, ready to be sent."""

    id: str
    method: str
    template: str
    path: str
    described: Json

    @property
    def body(self) -> Json | list[Json] | None:
        return BODIES.get(self.id)

    async def send(self, client: httpx.AsyncClient, body: Any = None) -> httpx.Response:
        """Send `body`, else the well-formed one."""
        given = self.body if body is None else body
        raw = b"" if given is None else json.dumps(given).encode()
        headers = {"content-type": "application/json"} if raw else {}
        headers |= {"x-baseten-signature": base64.b64encode(PRIVATE.sign(raw)).decode()} if raw else {}
        query = QUERIES.get(self.id, {})
        return await client.request(self.method, self.path, content=raw, headers=headers, params=query)


def set_public_key(database: Database, workspace_id: str) -> None:
    now = steady()()
    database.write_now(lambda connection: workspaces.set_public_key(units.over(connection, now), workspace_id, PEM))


def application(database: Database) -> Litestar:
    """An hour after the ledger's NOON; receivers may be private."""
    clock = steady()
    settings = Settings(allow_private_receivers=True)
    later = HandClock(NOON)
    later.advance(hours=1)
    router = control_app.build(
        control_app.desk(database, VAULT, clock, settings, helpers.at_once, ledger_now=lambda _: later())
    )
    openapi = control_app.openapi_config("0.1.0")
    return Litestar([router], openapi_config=openapi, exception_handlers=control_app.UNROUTED, logging_config=None)


async def furnish(database: Database, lab: Lab) -> dict[str, str]:
    """Make one of each, events and deliveries included; return what names them in a path."""
    set_public_key(database, lab.id)
    endpoint = await lab.endpoint(SLUG)
    group = (await lab.made_group("cust", {"slug": SLUG, **LIMITS}))["id"]
    _count(database, lab.id)
    _deliver(database, lab.id)
    return {
        "endpoint_id": endpoint["id"],
        "group_id": group,
        "secret_id": await lab.secret("upstream", "sk-1"),
        "api_key_prefix": (await lab.key(group))[:16],
        "delivery_id": DELIVERY,
        "request_id": REQUEST,
    }


def _count(database: Database, workspace_id: str) -> None:
    counted = [event(1, workspace_id=workspace_id, request_id=REQUEST), correction(2, workspace_id=workspace_id)]
    database.write_now(lambda connection: transaction.apply(connection, batch(counted), HandClock(NOON)))


def _deliver(database: Database, workspace_id: str) -> None:
    keep(database, row(workspace_id, DELIVERY, "dead", made_s=0, ended_s=15) | {"attempt_count": 2})
    tried = {"delivery_id": DELIVERY, "at": kit.START, "duration_ms": 7}
    tries = [
        tried | {"number": 1, "status_code": 500, "error": None},
        tried | {"number": 2, "status_code": None, "error": "gone"},
    ]
    database.write_now(lambda connection: connection.execute(insert(ATTEMPT), tries))


def calls(document: Json, known: Mapping[str, str]) -> Iterator[Call]:
    """Return a call of every operation, in an order in which each can succeed."""
    everything = [
        Call(operation["operationId"], method.upper(), path, path.format(**known), operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]
    yield from sorted(everything, key=lambda call: (_ORDER.index(call.method), -len(call.template)))
