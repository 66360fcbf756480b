"""Hostile texts in what a page of events, deliveries and keys shows: of developers, receivers and upstreams."""

from typing import Any

import msgspec
import pytest
from sqlalchemy import insert, update

from control.store import requests
from metering.store import transaction
from runtime.database.engines import Database
from tests.integration.control.console.people import Person
from tests.integration.control.console.test_safety import HOSTILE, runnable, said_whole
from tests.integration.control.helpers import Lab
from tests.integration.control.rows import keep, row
from tests.support.request_records import refused
from tests.unit.metering.factories import NOON, HandClock, batch, correction, event
from tests.unit.webhooks import kit
from webhooks.store.tables import ATTEMPT, DELIVERY

EVERY = pytest.mark.parametrize("text", HOSTILE)


async def shows(person: Person, address: str, text: str, times: int) -> None:
    answer = await person.get(address)
    assert answer.status_code == 200, address
    assert runnable(answer) == [], address
    assert said_whole(answer).count(text) >= times, address


@EVERY
async def test_of_a_delivery_the_body_the_error_and_the_answer(
    signed_in: Person, lab: Lab, database: Database, text: str
) -> None:
    body = msgspec.json.encode({"data": {"events": [{"externalEntityId": text, "requestMetadata": {text: text}}]}})
    keep(database, row(lab.id, "delivery-1", "dead", made_s=0, ended_s=15) | {"body": body, "reason": text})
    tried = {"delivery_id": "delivery-1", "at": kit.START, "duration_ms": 7, "error": text, "answer": text}
    tries = [tried | {"number": number, "status_code": status} for number, status in ((1, 500), (2, None))]
    database.write_now(lambda connection: connection.execute(insert(ATTEMPT), tries))
    in_json = msgspec.json.encode(text).decode()[1:-1]
    await shows(signed_in, "/console/webhook/deliveries/delivery-1", text, 5)
    await shows(signed_in, "/console/webhook/deliveries/delivery-1", in_json, 3)
    await shows(signed_in, "/console/webhook", "", 0)
    database.write_now(lambda connection: connection.execute(update(DELIVERY).values(body=text.encode())))
    await shows(signed_in, "/console/webhook/deliveries/delivery-1", text, 5)


@EVERY
async def test_of_a_key_the_names_and_what_a_refused_form_held(signed_in: Person, lab: Lab, text: str) -> None:
    await lab.endpoint("acme/m")
    body = {"metadata": {"external_entity_id": text, "name": text}, "models": [{"slug": "acme/m"}]}
    group = (await lab.client.post("/v1/gateway/groups", json=body)).json()["id"]
    minted = await lab.client.post(f"/v1/gateway/groups/{group}/api_keys", json={"name": text})
    prefix = minted.json()["prefix"]
    pages = f"/console/customers/{group}/keys"
    await shows(signed_in, f"{pages}/change?prefix={prefix}", text, 2)
    await shows(signed_in, f"{pages}/revoke?prefix={prefix}", text, 2)
    fields = {"prefix": prefix, "name": text, "etag": text, "expires_at": text, "overlap_hours": text}
    for action in ("change", "rotate"):
        refused_form = await signed_in.post(f"{pages}/{action}", fields)
        assert refused_form.status_code == 400, action
        assert runnable(refused_form) == [], action
    for action in ("change", "rotate", "revoke"):
        unknown = await signed_in.post(f"{pages}/{action}", fields | {"prefix": text})
        assert unknown.status_code == 404, action
        assert runnable(unknown) == [], action
    fields = {"prefix": prefix, "overlap_hours": "1"}
    assert runnable(await signed_in.post(f"{pages}/rotate", fields)) == []


@EVERY
async def test_of_an_event_its_customer_and_metadata_and_of_a_request_its_reason(
    signed_in: Person, lab: Lab, database: Database, text: str
) -> None:
    known: dict[str, Any] = {"workspace_id": lab.id, "external_entity_id": text, "model_slug": text}
    used = event(1, **known, request_metadata={text[:64]: text})
    corrected = correction(2, **known, reason=text)
    record = refused(NOON, lab.id, text[:64]).model_copy(
        update={"model_slug": text, "api_key_prefix": text, "detail": text, "upstream": text, "group_id": text}
    )

    database.write_now(lambda connection: transaction.apply(connection, batch([used, corrected]), HandClock(NOON)))
    database.write_now(lambda connection: requests.add(connection, [record]))
    await shows(signed_in, "/console/events?from=2025-01-01T00:00", text, 6)
    await shows(signed_in, f"/console/events/{used.idempotency_key}", text, 4)
    await shows(signed_in, f"/console/events/{corrected.idempotency_key}", text, 3)
    await shows(signed_in, f"/console/requests/{record.request_id}", text, 5)
    await shows(signed_in, "/console/usage?month=2025-03", text, 2)
    await shows(signed_in, "/console/usage?month=2025-03&by=day,model", text, 1)
