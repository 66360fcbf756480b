"""Billing webhooks' settings over the API: where they go, rotation with overlap, a test that bills nothing."""

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from litestar import Litestar
from sqlalchemy import func, select
from standardwebhooks import Webhook

from control import app as control_app
from control.store.workspaces import SqlWebhooks
from domain.sealing import webhook_context
from metering.store.events import USAGE_EVENT
from runtime.clock import steady
from runtime.database.engines import Database
from runtime.settings import Settings
from tests.integration.control import helpers
from tests.integration.control.helpers import VAULT, Lab
from tests.integration.webhooks.scene import serving, status
from tests.unit.metering.factories import HandClock
from webhooks.core import signing

PATH = "/v1/gateway/billing_webhook"


@pytest.fixture
def clock() -> HandClock:
    return HandClock(steady()())


@pytest.fixture
def app(database: Database, clock: HandClock) -> Litestar:
    settings = Settings(allow_private_receivers=True)
    router = control_app.build(control_app.desk(database, VAULT, clock, settings, helpers.at_once))
    return Litestar([router], exception_handlers=control_app.UNROUTED, logging_config=None)


def secrets(database: Database, lab: Lab, now: datetime) -> list[str]:
    """Return the plaintexts that sign now, newest first."""
    record = database.read_now(lambda connection: SqlWebhooks(connection).find(lab.id))
    assert record is not None
    valid = [secret for secret in record.secrets if secret.expires_at is None or now < secret.expires_at]
    return [VAULT.open(secret.sealed, webhook_context(lab.id)) for secret in valid]


async def test_usage_alerts_are_percents_each_once_at_most_five_and_a_put_replaces_them(
    lab: Lab, database: Database
) -> None:
    nowhere = {"url": None, "enabled": True}
    answer = await lab.client.put(PATH, json={**nowhere, "usage_alerts": [100, 80, 80]})
    assert (answer.status_code, answer.json()) == (200, {**nowhere, "usage_alerts": [80, 100]})
    assert (await lab.client.get(PATH)).json() == {**nowhere, "usage_alerts": [80, 100]}
    await rotate(lab, 0)
    record = database.read_now(lambda connection: SqlWebhooks(connection).find(lab.id))
    assert record is not None
    assert record.usage_alerts == (80, 100), "another change of the settings keeps them"
    for wrong in ([0], [101], [1, 2, 3, 4, 5, 6], ["a"], [80.5], 80, [True]):
        refused = await lab.client.put(PATH, json={**nowhere, "usage_alerts": wrong})
        assert refused.status_code == 400, wrong
        assert "usage_alerts" in refused.json()["error"]["message"]
    assert (await lab.client.put(PATH, json=nowhere)).json() == nowhere
    assert (await lab.client.put(PATH, json={**nowhere, "usage_alerts": None})).json() == nowhere


async def rotate(lab: Lab, overlap: Any) -> Any:
    return await lab.client.post(f"{PATH}/rotate_secret", json={"overlap_seconds": overlap})


async def test_it_goes_nowhere_until_it_is_set(lab: Lab) -> None:
    assert (await lab.client.get(PATH)).json() == {"url": None, "enabled": True}
    body = {"url": "https://lab.example/hook?x=1", "enabled": False}
    answer = await lab.client.put(PATH, json=body)
    assert (answer.status_code, answer.json()) == (200, body)
    assert (await lab.client.get(PATH)).json() == body
    nowhere = {"url": None, "enabled": True}
    assert (await lab.client.put(PATH, json=nowhere)).json() == nowhere


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"url": "ftp://lab.example", "enabled": True}, "url"),
        ({"url": "https://lab.example"}, "enabled"),
        ({"enabled": True}, "url"),
        ({"url": None, "enabled": "yes"}, "enabled"),
    ],
)
async def test_a_wrong_setting_names_the_field(lab: Lab, body: dict[str, Any], param: str) -> None:
    answer = await lab.client.put(PATH, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_both_secrets_sign_until_the_overlap_ends(lab: Lab, database: Database, clock: HandClock) -> None:
    (first,) = secrets(database, lab, clock())
    answer = (await rotate(lab, 3600)).json()
    second = answer["secret"]
    assert datetime.fromisoformat(answer["previous_expires_at"]) - clock() <= timedelta(hours=1)
    assert secrets(database, lab, clock()) == [second, first]
    clock.advance(hours=1, seconds=1)
    assert secrets(database, lab, clock()) == [second]
    third = (await rotate(lab, 0)).json()
    assert third["previous_expires_at"] is None
    assert secrets(database, lab, clock()) == [third["secret"]]


async def test_the_oldest_secret_keeps_its_promised_time_and_three_sign_at_most(
    lab: Lab, database: Database, clock: HandClock
) -> None:
    (first,) = secrets(database, lab, clock())
    second = (await rotate(lab, 60)).json()["secret"]
    third = (await rotate(lab, 30)).json()["secret"]
    assert secrets(database, lab, clock()) == [third, second, first]
    refused = await rotate(lab, 60)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "rotation_under_way")
    assert secrets(database, lab, clock()) == [third, second, first]
    clock.advance(seconds=31)
    assert secrets(database, lab, clock()) == [third, first]
    last = (await rotate(lab, 0)).json()["secret"]
    assert secrets(database, lab, clock()) == [last, first]
    clock.advance(seconds=30)
    assert secrets(database, lab, clock()) == [last]


@pytest.mark.parametrize("overlap", [-1, 2592001, "60", None, 1.5])
async def test_an_overlap_has_its_bounds(lab: Lab, overlap: Any) -> None:
    answer = await rotate(lab, overlap)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "overlap_seconds")


async def test_a_test_delivery_is_signed_marked_and_in_no_ledger(
    lab: Lab, database: Database, clock: HandClock
) -> None:
    async with serving(status(200)) as receiver:
        await lab.client.put(PATH, json={"url": receiver.url, "enabled": True})
        rotated = (await rotate(lab, 60)).json()["secret"]
        answer = await lab.client.post(f"{PATH}/test")
        (received,) = receiver.received
    result = answer.json()
    assert (result["delivered"], result["status_code"], result["error"]) == (True, 200, None)
    body = json.loads(received.body)
    (event,) = body["data"]["events"]
    assert (body["type"], event["kind"], event["requestMetadata"]) == ("API_BILLING_TEST", "test", {"test": "true"})
    assert not {"corrects", "reason"} & event.keys()
    Webhook(rotated).verify(received.body, received.headers)
    signing.verify(received.headers, received.body, secrets(database, lab, clock())[1:], clock())
    count = select(func.count()).select_from(USAGE_EVENT)
    assert database.read_now(lambda connection: connection.execute(count).scalar_one()) == 0


async def test_a_test_says_what_the_receiver_did(lab: Lab) -> None:
    nowhere = await lab.client.post(f"{PATH}/test")
    assert (nowhere.status_code, nowhere.json()["error"]["code"]) == (400, "no_url")
    async with serving(status(503)) as receiver:
        await lab.client.put(PATH, json={"url": receiver.url, "enabled": False})
        assert (await lab.client.post(f"{PATH}/test")).json()["status_code"] == 503
    gone = (await lab.client.post(f"{PATH}/test")).json()
    assert (gone["delivered"], gone["status_code"]) == (False, None)
    assert gone["error"]


async def test_another_lab_sees_and_sets_its_own(lab: Lab, other: Lab) -> None:
    await lab.client.put(PATH, json={"url": "https://lab.example/hook", "enabled": True})
    assert (await other.client.get(PATH)).json() == {"url": None, "enabled": True}
