"""What every `Sender` keeps to: the scripted fake, and the real one before a server that follows the same script."""

import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from tests.integration.webhooks import scene
from tests.unit.webhooks import kit
from webhooks.core.deliveries import Prepared
from webhooks.core.retry import AttemptResult
from webhooks.flow.ports import Sender
from webhooks.sender import HttpSender as RealSender

Made = tuple[Sender, str]


@contextlib.asynccontextmanager
async def scripted(*statuses: int) -> AsyncIterator[Made]:
    yield kit.ScriptedSender(*(kit.answered(status) for status in statuses)), "http://127.0.0.1:1/"


@contextlib.asynccontextmanager
async def real(*statuses: int) -> AsyncIterator[Made]:
    async with scene.serving(*(scene.status(status) for status in statuses)) as receiver:
        sender = RealSender(allow_private=True)
        try:
            yield sender, receiver.url
        finally:
            await sender.aclose()


@pytest.mark.parametrize("making", [scripted, real])
async def test_outcomes_come_in_the_order_of_the_attempts(
    making: Callable[..., contextlib.AbstractAsyncContextManager[Made]],
) -> None:
    async with making(500, 302, 200) as (sender, url):
        outcomes = [await sender.send(Prepared(url, {"webhook-id": "id"}, b"{}", 5)) for _ in range(4)]
    assert [outcome.status_code for outcome in outcomes] == [500, 302, 200, 200]
    assert all(isinstance(outcome, AttemptResult) and outcome.error is None for outcome in outcomes)


async def test_the_real_one_tells_a_failure_instead_of_raising_it() -> None:
    sender = RealSender(allow_private=True)
    outcome = await sender.send(Prepared("http://127.0.0.1:1/", {}, b"{}", 5))
    await sender.aclose()
    assert (outcome.status_code, outcome.final) == (None, False)
    assert outcome.error
