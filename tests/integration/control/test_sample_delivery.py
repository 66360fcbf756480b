"""A lab's test delivery: where it may go, how long it may take, and which secrets sign it (contract 2.5 and 5)."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from control import sample_delivery
from control.sample_delivery import BusyError, SampleDelivery
from runtime import clock
from runtime.database.engines import Database
from runtime.vault import webhook_context
from schemas.config import SealedSecret, WebhookRecord
from tests.integration.control import helpers
from tests.integration.control.helpers import VAULT, Lab
from tests.integration.webhooks.scene import hang, serving, status
from tests.unit.webhooks import kit
from webhooks.core import signing

NOW = kit.START


def record(*secrets: tuple[str, datetime | None]) -> WebhookRecord:
    """Return a lab's settings with these secrets, each with the moment that ends it."""
    sealed = (
        SealedSecret(sealed=VAULT.seal(plain, webhook_context("ws")), expires_at=ends_at) for plain, ends_at in secrets
    )
    return WebhookRecord(workspace_id="ws", url=None, enabled=True, secrets=tuple(sealed))


@pytest.mark.parametrize("place", ["http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/", "https://127.0.0.1/"])
async def test_it_goes_to_no_private_address_unless_the_operator_allows_it(place: str) -> None:
    async with serving(status(200)) as receiver:
        port = receiver.url.rpartition(":")[2].partition("/")[0]
        tested = await SampleDelivery(VAULT, allow_private=False).send(
            record((kit.SECRET, None)), place.format(port=port), NOW
        )
        assert receiver.received == []
    assert not tested.delivered
    assert (tested.error or "").startswith("refused: ")


@pytest.mark.parametrize(("settings", "is_delivered"), [({}, False), ({"allow_private_receivers": True}, True)])
async def test_the_api_goes_by_the_operators_setting(
    database: Database, lab: Lab, settings: dict[str, Any], *, is_delivered: bool
) -> None:
    path = "/v1/gateway/billing_webhook"
    async with serving(status(200)) as receiver:
        allowing = helpers.application(database, allow_private_receivers=True)
        async with helpers.client(allowing, lab.api_key) as client:
            assert (await client.put(path, json={"url": receiver.url, "enabled": True})).status_code == 200
        async with helpers.client(helpers.application(database, **settings), lab.api_key) as client:
            answer = (await client.post(f"{path}/test")).json()
        assert len(receiver.received) == is_delivered
    assert answer["delivered"] == is_delivered


async def test_it_takes_no_longer_than_an_attempt_may(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample_delivery.WITHIN_S == 10
    monkeypatch.setattr(sample_delivery, "WITHIN_S", 0.2)
    async with serving(hang) as receiver:
        tested = await SampleDelivery(VAULT, allow_private=True).send(record((kit.SECRET, None)), receiver.url, NOW)
    assert (tested.delivered, tested.status_code, tested.error) == (False, None, "no answer within 0.2 s")
    assert tested.duration_ms < 5000


@pytest.mark.parametrize(("ends_s", "signs"), [(-1, False), (0, False), (1, True)])
async def test_a_secret_signs_until_its_overlap_ends(ends_s: float, *, signs: bool) -> None:
    secrets = ((kit.SECRET, None), (kit.OLDER_SECRET, NOW + timedelta(seconds=ends_s)))
    async with serving(status(200)) as receiver:
        tested = await SampleDelivery(VAULT, allow_private=True).send(record(*secrets), receiver.url, NOW)
    (received,) = receiver.received
    assert tested.delivered
    signing.verify(received.headers, received.body, [kit.SECRET], clock.present())  # theirs, not `now`
    assert len(received.headers["x-baseten-signature"].split(",")) == 1 + signs
    assert len(received.headers["webhook-signature"].split(" ")) == 1 + signs


async def test_no_more_than_a_few_are_made_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample_delivery, "_AT_ONCE", 0)
    with pytest.raises(BusyError):
        await SampleDelivery(VAULT, allow_private=True).send(record((kit.SECRET, None)), "http://127.0.0.1:1/", NOW)
