"""A POST whose answer was lost, sent again under its `Idempotency-Key` (contract 2)."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from litestar import Litestar
from sqlalchemy import select

from control import app as control_app
from control import credentials
from control.store import answers, tables
from runtime.database.engines import Database
from runtime.settings import Settings
from schemas.billing import RotateSecret
from tests.integration.control import helpers
from tests.integration.control.helpers import VAULT, Lab
from tests.unit.metering.factories import HandClock

SLUG = "acme/m"
KEY = {"idempotency-key": "a key of the client's: 1"}


def kept(database: Database) -> list[Any]:
    return list(database.read_now(lambda connection: connection.execute(select(tables.KEPT_ANSWERS)).all()))


async def calls(lab: Lab) -> list[tuple[str, dict[str, Any]]]:
    await lab.endpoint(SLUG)
    group = (await lab.made_group("cust", {"slug": SLUG}))["id"]
    body = {"metadata": {"external_entity_id": "another"}, "models": [{"slug": SLUG}]}
    return [
        ("/v1/gateway/endpoints", helpers.endpoint_body("acme/new")),
        ("/v1/gateway/groups", body),
        (f"/v1/gateway/groups/{group}/api_keys", {"name": "n"}),
        ("/v1/secrets", {"name": "s", "value": "sk-very-secret"}),
        ("/v1/gateway/billing_webhook/rotate_secret", RotateSecret(overlap_seconds=0).model_dump()),
    ]


async def test_a_repeated_post_gets_the_answer_that_it_had(lab: Lab, database: Database) -> None:
    for path, body in await calls(lab):
        first = await lab.client.post(path, json=body, headers=KEY)
        assert first.status_code == 200, first.text
        changes = len(helpers.changes(database))
        again = await lab.client.post(path, json=body, headers=KEY)
        assert (again.status_code, again.content) == (200, first.content)
        assert len(helpers.changes(database)) == changes, "nothing was made a second time"
        assert again.headers.get("etag") == first.headers.get("etag")
    rows = kept(database)
    assert len(rows) == 5, "the path is part of a call"
    assert not any(secret in repr(rows) for secret in ("sky_", "whsec_", "sk-very-secret", KEY["idempotency-key"]))


async def test_another_body_under_the_same_key_is_refused(lab: Lab) -> None:
    (_, _, (path, body), *_) = await calls(lab)
    assert (await lab.client.post(path, json=body, headers=KEY)).status_code == 200
    answer = await lab.client.post(path, json=body | {"name": "m"}, headers=KEY)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (409, "idempotency_key_reused", "Idempotency-Key")


async def test_a_kept_answer_is_never_given_to_another_management_key(
    lab: Lab, app: Litestar, database: Database
) -> None:
    (_, _, (path, body), *_) = await calls(lab)
    first = (await lab.client.post(path, json=body, headers=KEY)).json()
    plaintext = credentials.mint_management_key()
    row = {
        "prefix": plaintext[:16],
        "workspace_id": lab.id,
        "sha256": credentials.digest(plaintext),
        "scope": "manage",
        "created_at": HandClock()(),
    }
    database.write_now(lambda connection: connection.execute(tables.MANAGEMENT_KEYS.insert().values(row)))
    async with helpers.client(app, plaintext) as client:
        second = (await client.post(path, json=body, headers=KEY)).json()
    assert second["api_key"] != first["api_key"]


async def test_a_refused_post_is_not_kept(lab: Lab, database: Database) -> None:
    body = helpers.endpoint_body("globex/m")
    for _ in range(2):
        assert (await lab.client.post("/v1/gateway/endpoints", json=body, headers=KEY)).status_code == 400
    assert kept(database) == []


@pytest.mark.parametrize("key", ["", "x" * 256, "\x7f"])
async def test_a_key_that_is_none_is_refused(lab: Lab, key: str) -> None:
    body = helpers.endpoint_body(SLUG)
    answer = await lab.client.post("/v1/gateway/endpoints", json=body, headers={"idempotency-key": key})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_of_many_at_once_one_is_made(lab: Lab, database: Database) -> None:
    (_, _, (path, body), *_) = await calls(lab)
    sent = await asyncio.gather(*(lab.client.post(path, json=body, headers=KEY) for _ in range(8)))
    assert {answer.status_code for answer in sent} <= {200, 409}
    codes = {answer.json()["error"]["code"] for answer in sent if answer.status_code == 409}
    assert codes <= {"idempotency_in_progress"}
    assert len({answer.json()["api_key"] for answer in sent if answer.status_code == 200}) == 1
    assert len((await lab.client.get(path)).json()["items"]) == 1


async def test_no_answer_is_kept_longer_than_a_day_once_any_workspace_keeps_one(
    lab: Lab, other: Lab, database: Database
) -> None:
    clock = HandClock()
    app = Litestar(
        [control_app.build(control_app.desk(database, VAULT, clock, Settings(), helpers.at_once))], logging_config=None
    )
    for whose, slug in ((lab, "acme/m"), (other, "globex/m")):
        async with helpers.client(app, whose.api_key) as client:
            body = helpers.endpoint_body(slug)
            assert (await client.post("/v1/gateway/endpoints", json=body, headers=KEY)).status_code == 200
        clock.now += timedelta(hours=24)
    assert [row.workspace_id for row in kept(database)] == [other.id]


async def test_after_a_day_and_beyond_the_bound_a_key_is_new(
    lab: Lab, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST", 2)
    clock = HandClock()
    (_, _, (path, body), *_) = await calls(lab)
    app = Litestar(
        [control_app.build(control_app.desk(database, VAULT, clock, Settings(), helpers.at_once))], logging_config=None
    )
    async with helpers.client(app, lab.api_key) as client:

        async def made(key: str) -> str:
            answer = await client.post(path, json=body, headers={"idempotency-key": key})
            return str(answer.json()["api_key"])

        first = await made("1")
        assert await made("1") == first
        for key in ("2", "3"):
            clock.now += timedelta(seconds=1)
            await made(key)
        assert len(kept(database)) == 2
        third = await made("3")
        assert await made("1") != first, "it was the oldest of three"
        clock.now += timedelta(hours=24)
        assert await made("3") != third
        assert len(kept(database)) == 1
