"""One request found by its id: refused, failed or complete, by its own lab alone (contract 2.5)."""

from typing import Any

import pytest
from sqlalchemy import insert

from control.store import requests
from metering.store import transaction
from runtime import ids
from runtime.database.engines import Database
from schemas.monitoring.requests import RequestEnd, RequestRecord
from schemas.usage import Outcome
from tests.integration.control.helpers import Lab
from tests.integration.control.rows import keep, row
from tests.unit.metering.factories import NOON, HandClock, batch, correction, event
from webhooks.store.tables import ATTEMPT, DELIVERY_EVENT

PATH = "/v1/gateway/requests"
REQUEST = "01955193-de00-7d6a-9002-d56466521c79"
"""Of NOON."""


def record(workspace_id: str | None, **fields: Any) -> RequestRecord:
    given: dict[str, Any] = {
        "request_id": REQUEST,
        "at": NOON,
        "ended": RequestEnd.REFUSED,
        "status": 429,
        "reason": "rate_limit_exceeded",
        "detail": "Rate limit reached.",
        "workspace_id": workspace_id,
        "group_id": "group-a",
        "api_key_prefix": "sky_abcdefghijkl",
        "model_slug": "org/model",
        "latency_ms": 3,
        "instance": "proxy-a",
    }
    return RequestRecord(**given | fields)


def put(database: Database, *records: RequestRecord) -> None:
    database.write_now(lambda connection: requests.add(connection, records))


async def test_a_refused_request_is_found_by_its_own_lab_alone(lab: Lab, other: Lab, database: Database) -> None:
    put(database, record(lab.id))
    answer = await lab.client.get(f"{PATH}/{REQUEST.upper()}")
    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "request_id": REQUEST,
        "at": "2025-03-01T12:00:00.000Z",
        "outcome": "refused",
        "status": 429,
        "reason": "rate_limit_exceeded",
        "detail": "Rate limit reached.",
        "group_id": "group-a",
        "api_key_prefix": "sky_abcdefghijkl",
        "model_slug": "org/model",
        "route": None,
        "upstream": None,
        "latency_ms": 3,
        "first_byte_ms": None,
        "event": None,
        "delivery": None,
    }
    assert (await other.client.get(f"{PATH}/{REQUEST}")).status_code == 403


async def test_a_complete_request_is_found_with_its_event_its_delivery_and_the_attempts(
    lab: Lab, database: Database
) -> None:
    one = event(1, workspace_id=lab.id, request_id=REQUEST)
    taken_back = correction(3, workspace_id=lab.id, request_id=REQUEST)
    neighbour = event(2, workspace_id=lab.id, request_id=ids.uuid7(NOON))  # of the same millisecond
    stretch = batch([one, neighbour, taken_back])
    database.write_now(lambda connection: transaction.apply(connection, stretch, HandClock()))
    found = (await lab.client.get(f"{PATH}/{REQUEST}")).json()
    assert (found["outcome"], found["status"], found["delivery"]) == ("complete", None, None)
    assert found["event"]["idempotencyKey"] == one.idempotency_key
    assert (found["latency_ms"], found["first_byte_ms"]) == (120, 40)
    keep(database, row(lab.id, "one", "delivered", made_s=1, ended_s=2) | {"attempt_count": 1})
    known = {"workspace_id": lab.id, "delivery_id": "one", "input_tokens": 10, "output_tokens": 5}
    known |= {"day": NOON.date(), "idempotency_key": one.idempotency_key}
    attempt = {"delivery_id": "one", "number": 1, "at": NOON, "status_code": 204, "duration_ms": 9}

    def write(connection: Any) -> None:
        connection.execute(insert(DELIVERY_EVENT), known)
        connection.execute(insert(ATTEMPT), attempt)

    database.write_now(write)
    delivery = (await lab.client.get(f"{PATH}/{REQUEST}")).json()["delivery"]
    assert (delivery["id"], delivery["status"]) == ("one", "delivered")
    assert [attempt["status_code"] for attempt in delivery["attempts"]] == [204]


async def test_one_that_was_cut_short_has_its_event_and_why(lab: Lab, database: Database) -> None:
    cut = event(1, workspace_id=lab.id, request_id=REQUEST, outcome=Outcome.UPSTREAM_ERROR)
    database.write_now(lambda connection: transaction.apply(connection, batch([cut]), HandClock()))
    put(database, record(lab.id, ended=RequestEnd.FAILED, status=200, reason="upstream_error", upstream="up.example"))
    found = (await lab.client.get(f"{PATH}/{REQUEST}")).json()
    assert (found["outcome"], found["status"], found["upstream"]) == ("upstream_error", 200, "up.example")
    assert found["event"]["outcome"] == "upstream_error"


async def test_a_host_that_the_operators_settings_name_is_not_shown(lab: Lab, database: Database) -> None:
    put(database, record(lab.id, upstream="inside.example", by_operator=True))
    answer = await lab.client.get(f"{PATH}/{REQUEST}")
    assert answer.json()["upstream"] is None
    assert "inside.example" not in answer.text


async def test_a_401_belongs_to_no_workspace(lab: Lab, database: Database) -> None:
    put(database, record(None, status=401, reason="invalid_api_key"))
    assert (await lab.client.get(f"{PATH}/{REQUEST}")).status_code == 404


@pytest.mark.parametrize(
    ("request_id", "status"),
    [
        ("019556ba-3a00-77f0-8d4b-682b6df53912", 404),
        ("0193a1b2-c3d4-4e5f-8a6b-0123456789ab", 400),
        ("nothing", 400),
        ("ffffffff-ffff-7fff-bfff-ffffffffffff", 400),
        (REQUEST.replace("-", ""), 400),
        (f"%7B{REQUEST}%7D", 400),
    ],
)
async def test_what_is_no_request_is_said_to_be_none(lab: Lab, request_id: str, status: int) -> None:
    answer = await lab.client.get(f"{PATH}/{request_id}")
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == "request_id"
