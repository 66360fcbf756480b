"""Bad receivers side by side, each with a lab of its own: how each ends, when it was tried, what a redrive brings."""

import asyncio
import contextlib
import hashlib
import hmac
import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Row, select
from standardwebhooks import Webhook

from runtime import clock
from runtime.http import server
from schemas.config import ConfigChange, ConfigKind, SealedSecret, WebhookRecord
from tests.integration.webhooks.scene import VAULT, Scene, dispatching, hang, serving, status
from tests.integration.webhooks.test_sender import certificate
from tests.support.engines import Place
from tests.unit.webhooks import kit
from webhooks.core import retry, signing
from webhooks.core.retry import Policy
from webhooks.store import redrive, tables

POLICY = Policy(
    bound_s=3.0, attempt_timeout_s=1.0, backoff_first_s=0.1, backoff_most_s=0.3, jitter_share=0.0, away_after_s=5.0
)
ROUNDED_S = 0.01
"""What rounding makes of durations and of the times that errors tell."""


@dataclass(frozen=True)
class Ending:
    """What becomes of a delivery: its status, what its attempts met, and a part of its reason."""

    status: str
    met: tuple[int | str, ...] | str
    """The status codes in order; or what every error says."""
    reason: str = ""


ENDINGS = {
    "hangs": Ending("dead", "no answer within", "no success within the 3 s after the first attempt"),
    "refuses": Ending("dead", "ConnectError", "no success within"),
    "500 then 200": Ending("delivered", (500, 200)),
    "429": Ending("delivered", (429, 200)),
    "429 for long": Ending("dead", (429,), "its Retry-After lies beyond"),
    "301": Ending("dead", (301,), "answered 301"),
    "400": Ending("dead", (400,), "answered 400"),
    "410": Ending("dead", (410,), "answered 410"),
    "5 MB": Ending("delivered", (200,)),
    "half a body": Ending("delivered", (200,)),
    "half a head": Ending("dead", "RemoteProtocolError", "no success within"),
    "wrong certificate": Ending("dead", "CERTIFICATE_VERIFY_FAILED", "no success within"),
}


@contextlib.asynccontextmanager
async def raw(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve the same bytes to whoever asks, and hang up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            try:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
                await writer.drain()
            finally:
                writer.close()  # also where the sender has given up before it asked
            await writer.wait_closed()

    running = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{running.sockets[0].getsockname()[1]}/"
    finally:
        running.close()


@contextlib.asynccontextmanager
async def bad_receivers(folder: Path) -> AsyncIterator[dict[str, str]]:
    """Return the URL of each."""
    listener = server.listen("127.0.0.1", 0)
    urls = {"refuses": f"{server.address_of(listener)}/"}
    listener.close()
    served = {
        "hangs": (hang,),
        "500 then 200": (status(500), status(200)),
        "429": (status(429, (b"retry-after", b"1")), status(200)),
        "429 for long": (status(429, (b"retry-after", b"4")),),
        "301": (status(301, (b"location", b"http://127.0.0.1:1/")),),
        "400": (status(400),),
        "410": (status(410),),
        "5 MB": (status(200, body=b"x" * 5_000_000),),
    }
    async with contextlib.AsyncExitStack() as stack:
        for name, answers in served.items():
            urls[name] = (await stack.enter_async_context(serving(*answers))).url
        half = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
        urls["half a body"] = await stack.enter_async_context(raw(half))
        urls["half a head"] = await stack.enter_async_context(raw(half[:20]))
        context, _ = certificate(folder, "127.0.0.1")
        urls["wrong certificate"] = await stack.enter_async_context(raw(half, context))
        yield urls


def attempts(scene: Scene, workspace_id: str) -> Sequence[Row[Any]]:
    attempt, delivery = tables.ATTEMPT, tables.DELIVERY
    joined = select(attempt).join(delivery, attempt.c.delivery_id == delivery.c.id)
    query = joined.where(delivery.c.workspace_id == workspace_id).order_by(attempt.c.number)
    return scene.database.read_now(lambda connection: connection.execute(query).all())


def check_times(delivery: Row[Any], tried: Sequence[Row[Any]], asked_s: float) -> None:
    """Hold a run's attempts, as they were recorded, against the rule: all of it holds however slow the machine is.

    The first answer asked for `asked_s` of rest.
    """
    moments = [(attempt.at - delivery.first_attempt_at).total_seconds() for attempt in tried]
    due_s = 0.0
    for number, (attempt, began_s) in enumerate(zip(tried, moments, strict=True), 1):
        assert due_s - ROUNDED_S <= began_s
        assert due_s < POLICY.bound_s
        if (told := re.search(r"no answer within (\S+) s", attempt.error or "")) is not None:
            least_s = max(POLICY.shortest_attempt_s, POLICY.bound_s - began_s)
            most_s = max(POLICY.shortest_attempt_s, POLICY.bound_s - due_s)
            whole_s = POLICY.attempt_timeout_s
            assert min(whole_s, least_s) - ROUNDED_S <= float(told[1]) <= min(whole_s, most_s) + ROUNDED_S
        wait_s = max(retry.backoff_s(number, POLICY, 0.0), asked_s)
        due_s = began_s + attempt.duration_ms / 1000 + wait_s


async def test_each_ends_as_the_rule_says_and_after_a_redrive_everything_has_arrived(
    place: Place, tmp_path: Path
) -> None:
    async with bad_receivers(tmp_path) as urls, dispatching(place, policy=POLICY, batch_size=3) as scene:
        assert urls.keys() == ENDINGS.keys()
        for name, url in urls.items():
            scene.set_webhook(url, name)
        labs = list(urls)
        await scene.partition.put(*(kit.event(n, labs[n % len(labs)]) for n in range(3 * len(labs))))
        await scene.until(lambda: len(scene.statuses()) == len(labs) and "pending" not in scene.statuses())
        ended = {row.workspace_id: row for row in scene.deliveries()}
        for name, ending in ENDINGS.items():
            row, tried = ended[name], attempts(scene, name)
            assert (name, row.status) == (name, ending.status)
            assert ending.reason in (row.reason or "")
            check_times(row, tried, 1.0 if name == "429" else 0.0)
            if isinstance(ending.met, tuple):
                assert (name, tuple(attempt.status_code for attempt in tried)) == (name, ending.met)
            else:
                assert len(tried) >= 2
                assert ending.met in tried[0].error
                # The last has what is left of the bound, which may be too little to get as far on a busy machine.
                assert all(ending.met in attempt.error or "no answer within" in attempt.error for attempt in tried)
        async with serving(status(200)) as good:
            for name in labs:
                scene.set_webhook(good.url, name)
                now = clock.steady()()
                step = partial(redrive.redrive, workspace_id=name, now=now, per_s=1000.0)
                scene.database.write_now(step)
            await scene.until_statuses(*["delivered"] * len(labs))
            lost = {name: row for name, row in ended.items() if row.status == "dead"}
            came = {one.headers["x-baseten-request-id"]: one for one in good.received}
            assert {row.id for row in lost.values()} == came.keys()
            assert len(good.received) == len(lost)
            for row in lost.values():
                assert came[row.id].body == row.body
                Webhook(kit.SECRET).verify(came[row.id].body, came[row.id].headers)
            keys = Counter(key for one in good.received for key in one.keys)
            assert set(keys.values()) == {1}
            assert len(keys) == 3 * len(lost)


async def test_every_delivery_of_a_rotation_verifies_with_each_secret_of_its_moment(place: Place) -> None:
    """Before, during and after an overlap: `standardwebhooks`, and a check of the other signature by itself."""
    now = clock.steady()()
    secrets = {
        "before": (kit.OLDER_SECRET,),
        "during": (kit.SECRET, kit.OLDER_SECRET),
        "after": (kit.SECRET,),
    }

    def change(version: int, url: str, plain: Sequence[str]) -> ConfigChange:
        sealed = [SealedSecret(sealed=VAULT.seal(secret, context="webhook:ws")) for secret in plain]
        record = WebhookRecord(workspace_id="ws", url=url, enabled=True, secrets=tuple(sealed))
        return ConfigChange(version=version, kind=ConfigKind.WEBHOOK, id="ws", record=record)

    async with serving(status(200)) as receiver, dispatching(place, batch_size=1) as scene:
        for version, plain in enumerate(secrets.values(), 1):
            scene.dispatcher.apply(change(version, receiver.url, plain))
            await scene.partition.put(*(kit.event(10 * version + n) for n in range(5)))
            await scene.until_statuses(*["delivered"] * 5 * version)
    for number, plain in enumerate(secrets.values()):
        for one in receiver.received[5 * number : 5 * number + 5]:
            for secret in (kit.SECRET, kit.OLDER_SECRET):
                if secret in plain:
                    Webhook(secret).verify(one.body, one.headers)
                    signing.verify(one.headers, one.body, [secret], now)
                else:
                    with pytest.raises(signing.VerificationError):
                        signing.verify(one.headers, one.body, [secret], now)
                mac = hmac.new(secret.encode(), one.body, hashlib.sha256).hexdigest()
                assert (f"v1={mac}" in one.headers["x-baseten-signature"].split(",")) == (secret in plain)
