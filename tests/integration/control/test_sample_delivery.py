"""A lab's test delivery: where it may go, how long it may take, and which secrets sign it (contract 2.5 and 5)."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from control import sample_delivery
from control.core.refusals import OverloadedError, RefusalError, ShareExceededError
from control.sample_delivery import SampleDelivery
from domain.sealing import webhook_context
from runtime import clock
from runtime.database.engines import Database
from schemas.config import SealedSecret, WebhookRecord
from tests.integration.control import helpers
from tests.integration.control.helpers import VAULT, Lab
from tests.integration.webhooks.scene import hang, serving, status
from tests.unit.webhooks import kit
from webhooks.core import signing
from webhooks.core.deliveries import Prepared
from webhooks.sender import HttpSender

NOW = kit.START


def record(*secrets: tuple[str, datetime | None], workspace_id: str = "ws") -> WebhookRecord:
    """Return a lab's settings with these secrets, each with the moment that ends it."""
    sealed = (
        SealedSecret(sealed=VAULT.seal(plain, webhook_context(workspace_id)), expires_at=ends_at)
        for plain, ends_at in secrets
    )
    return WebhookRecord(workspace_id=workspace_id, url=None, enabled=True, secrets=tuple(sealed))


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


async def test_a_lab_makes_two_tests_at_once_and_all_labs_together_eight() -> None:
    """One whose receiver hangs is told that it has its share; the others' go through until all places are taken."""
    samples = SampleDelivery(VAULT, allow_private=True)
    async with serving(hang) as stuck, serving(status(200)) as well:
        waiting = [
            asyncio.create_task(samples.send(record((kit.SECRET, None), workspace_id=lab), stuck.url, NOW))
            for lab in ("a", "a", "b", "b", "c", "c")
        ]
        await asyncio.sleep(0)
        with pytest.raises(ShareExceededError, match="2 tests of this workspace"):
            await samples.send(record((kit.SECRET, None), workspace_id="a"), well.url, NOW)
        waiting += [
            asyncio.create_task(samples.send(record((kit.SECRET, None), workspace_id="d"), stuck.url, NOW))
            for _ in range(2)
        ]
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="8 tests"):
            await samples.send(record((kit.SECRET, None)), well.url, NOW)
        for one in waiting[:2]:
            one.cancel()
        await asyncio.gather(*waiting[:2], return_exceptions=True)
        assert (await samples.send(record((kit.SECRET, None)), well.url, NOW)).delivered
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize("address", ["10.1.2.3", "169.254.169.254", "fd00::1234"])
async def test_the_answer_does_not_tell_where_an_internal_name_leads(address: str) -> None:
    """A lab that could read it would have the operator's private names looked up for it."""

    async def internal(_host: str, _port: int) -> list[str]:
        return [address]

    sender = HttpSender(allow_private=False, resolver=internal)
    try:
        error = (await sender.send(Prepared("https://db.internal.example/", {}, b"{}", 2.0))).error or ""
    finally:
        await sender.aclose()
    assert error.startswith("refused: db.internal.example")
    assert address not in error


async def test_nor_where_a_connection_failed() -> None:
    async def private(_host: str, _port: int) -> list[str]:
        return ["127.0.0.9"]

    sender = HttpSender(allow_private=True, resolver=private)
    try:
        error = (await sender.send(Prepared("http://db.internal.example:1/", {}, b"{}", 2.0))).error or ""
    finally:
        await sender.aclose()
    assert error.startswith("ConnectError: ")
    assert "127" not in error


@pytest.mark.parametrize(("error", "status_code"), [(ShareExceededError("x"), 429), (OverloadedError("x"), 503)])
async def test_a_test_beyond_a_bound_is_refused_by_its_name(
    database: Database, lab: Lab, monkeypatch: pytest.MonkeyPatch, error: RefusalError, status_code: int
) -> None:
    async def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(SampleDelivery, "send", refuse)
    path = "/v1/gateway/billing_webhook"
    await lab.client.put(path, json={"url": "https://lab.example/", "enabled": True})
    answer = await lab.client.post(f"{path}/test")
    assert (answer.status_code, answer.headers["retry-after"]) == (status_code, "1")
