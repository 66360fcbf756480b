"""Serves a local receiver of billing webhooks that verifies every body and shows it.

Never answers before what it received is in its file.
"""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from runtime.clock import Clock
from runtime.http import server
from schemas.base import rfc3339
from tollgate.tools import mock_upstream
from webhooks.core import signing

MAX_BODY_BYTES = 8 * 1024 * 1024
"""More than 100 events of the largest size; a larger body is answered 413 and not kept."""

_STOP_S = 5
_FORWARD_S = 10.0
"""How long the program behind may take: as long as an attempt."""

Forward = Callable[[Mapping[str, str], bytes], Awaitable[tuple[int, str]]]
"""Pass a request on; return the status that it got, and in words what became of it."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the receiver answers what it has verified: a lab tries its own alarms against a bad one."""

    status: int = 200
    fail_rate: float = 0.0
    """The share that is answered 500 instead, evenly spread."""
    slow_s: float = 0.0
    """How long each answer waits."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """One request as it came, and whether both its signatures hold."""

    headers: dict[str, str]
    body: str
    """The raw text; bytes that are no UTF-8 are shown as replacement characters."""
    verified: bool
    problem: str | None
    received_at: str
    answered: int
    """The status that it is answered with."""

    def as_dict(self) -> dict[str, Any]:
        """Return what `--out` and `--json` write."""
        return asdict(self)


class ReceiverApp:
    """The ASGI application."""

    def __init__(
        self,
        secrets: Sequence[str],
        clock: Clock,
        keep: Callable[[Receipt], None],
        behaviour: Behaviour | None = None,
        forward: Forward | None = None,
    ) -> None:
        """`keep` is called with each receipt before it is answered; `forward` answers what is verified, if given."""
        self._secrets = tuple(secrets)
        self._clock = clock
        self._keep = keep
        self._behaviour = behaviour or Behaviour()
        self._forward = forward
        self._fails = mock_upstream.spread(self._behaviour.fail_rate)

    async def __call__(self, scope: mock_upstream.Message, receive: mock_upstream.Receive, send: Any) -> None:
        """Answer one request as it should be where both signatures hold, 401 where they do not."""
        if scope["method"] != "POST":
            await _answer(send, 405, "a webhook is a POST")
            return
        body = await _read(receive)
        if body is None:
            await _answer(send, 413, f"a body has at most {MAX_BODY_BYTES} bytes")
            return
        receipt, said = self._receipt(scope, body), "signature verified"
        if receipt.verified and self._forward is not None:
            status, said = await self._forward(receipt.headers, body)
            receipt = replace(receipt, answered=status)
        self._keep(receipt)
        if self._behaviour.slow_s:
            await asyncio.sleep(self._behaviour.slow_s)
        await _answer(send, receipt.answered, receipt.problem or said)

    def _receipt(self, scope: mock_upstream.Message, body: bytes) -> Receipt:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        now = self._clock()
        problem = None
        try:
            signing.verify(headers, body, self._secrets, now)
        except signing.VerificationError as error:
            problem = str(error)
        answered = self._status() if problem is None else 401
        return Receipt(headers, body.decode(errors="replace"), problem is None, problem, rfc3339(now), answered)

    def _status(self) -> int:
        return 500 if next(self._fails) else self._behaviour.status


def forwarder(url: str) -> Forward:
    """Return a `Forward` to `url`: the same bytes with the same headers, except for those of the connection.

    A program that does not answer is a 502, so that the delivery is tried again.
    """

    trusted = httpx.create_ssl_context()

    async def forward(headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        kept = {name: value for name, value in headers.items() if name not in _OF_CONNECTION}
        try:
            async with httpx.AsyncClient(verify=trusted, trust_env=False, timeout=_FORWARD_S) as client:
                answer = await client.post(url, content=body, headers=kept)
        except httpx.HTTPError as error:
            return 502, f"{url} did not answer: {type(error).__name__}"
        return answer.status_code, f"{url} answered {answer.status_code}"

    return forward


_OF_CONNECTION = frozenset({"host", "connection", "content-length", "transfer-encoding"})


async def serve(app: ReceiverApp, host: str, port: int, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `announce` gets the URL once requests are taken. Raise OSError."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    listener = server.listen(host, port)
    running = server.Server(app, listener, grace_s=_STOP_S)
    run = asyncio.create_task(running.run_until_stopped())
    stopped = asyncio.create_task(stopping.wait())
    announce(server.address_of(listener))
    await asyncio.wait((run, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    await server.stop_all([running], [run])


def keeper(show: Callable[[Receipt], None], out: Path | None) -> Callable[[Receipt], None]:
    """Return a `keep` that writes each receipt to `out` as a JSON line, with the system on return, then shows it."""
    file = mock_upstream.LineFile(out) if out else None

    def keep(receipt: Receipt) -> None:
        if file is not None:
            file.append(receipt.as_dict())
        show(receipt)

    return keep


def pretty(body: str) -> str:
    """Return a body for reading: indented where it is JSON, else escaped on one line."""
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return ascii(body)


async def _read(receive: mock_upstream.Receive) -> bytes | None:
    """Return the whole body; None where it is too large, or its sender went away."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES or message["type"] == "http.disconnect":
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


async def _answer(send: Any, status: int, message: str) -> None:
    body = json.dumps({"message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
