"""Makes attempts: POSTs a prepared body to a receiver, to a checked address only (spec 5).

Never follows a redirect, never uses a proxy of the environment, never keeps more than 16 KiB of an answer.
"""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from runtime import guard
from webhooks.core.retry import Outcome
from webhooks.core.values import Prepared

MAX_ANSWER_BYTES = 16 * 1024
USER_AGENT = "tollgate-webhooks/1"

_DRAIN_S = 1.0  # for the answer's body, which says nothing to us: reading it to its end lets the connection be reused
_KEEP_ALIVE_S = 4.0  # below the 5 s after which common servers close: a request must not meet a closing connection
_CONNECTIONS = 256
_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, OSError)
_TEXT_LIMIT = 200


class Sender:
    """The `Sender` port on httpcore: connections are kept per (scheme, host, port), each to an address checked then.

    A connection is made to the address that was checked, with the URL's host in SNI, certificate check and Host.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        resolver: guard.Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or httpx.create_ssl_context(),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=_KEEP_ALIVE_S,
            network_backend=CheckedNetwork(allow_private=allow_private, resolver=resolver),
        )

    async def send(self, prepared: Prepared) -> Outcome:
        """Make one attempt. Once a status has come it is the outcome, whatever becomes of the rest of the answer."""
        started = time.perf_counter()
        answers: list[httpcore.Response] = []
        error, final = None, False
        try:
            async with asyncio.timeout(prepared.timeout_s):
                await self._post(prepared, answers)
        except guard.RefusedError as refusal:
            error, final = f"refused: {refusal}", True
        except (TimeoutError, httpcore.TimeoutException):
            error = f"no answer within {prepared.timeout_s:.3g} s"
        except _ERRORS as failure:
            error = _describe(failure)
        duration_ms = round((time.perf_counter() - started) * 1000)
        if answers:
            return Outcome(answers[0].status, None, duration_ms, _retry_after(answers[0]))
        return Outcome(None, error, duration_ms, final=final)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def _post(self, prepared: Prepared, answers: list[httpcore.Response]) -> None:
        place = guard.parse_url(prepared.url, allow_private=self._allow_private)
        url = httpcore.URL(
            scheme=place.scheme.encode(), host=place.host.encode(), port=place.port, target=place.target.encode()
        )
        headers = [
            ("Host", place.authority),
            ("Content-Type", "application/json"),
            ("User-Agent", USER_AGENT),
            *prepared.headers.items(),
        ]
        async with self._pool.stream("POST", url, headers=headers, content=prepared.body) as response:
            answers.append(response)
            await _drain(response)


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses alone."""

    def __init__(self, *, allow_private: bool, resolver: guard.Resolver | None = None) -> None:
        self._allow_private = allow_private
        self._resolver = resolver
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the interface's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check all, connect to the first that answers. Raises RefusedError, OSError, httpcore's errors."""
        addresses = await guard.resolve(host, port, allow_private=self._allow_private, resolver=self._resolver)
        *others, last = addresses
        for address in others:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._network.connect_tcp(address, port, _SHARE_S, local_address, socket_options)
        return await self._network.connect_tcp(last, port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # the interface's own signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: a receiver is never a local socket."""
        raise guard.RefusedError("a receiver must not be a local socket")

    async def sleep(self, seconds: float) -> None:
        """Wait, as the pool asks."""
        await self._network.sleep(seconds)


_SHARE_S = 2.0  # for one of several addresses, so that a dead one leaves time for the next


async def _drain(response: httpcore.Response) -> None:
    """Read what is left, as far as it is worth a connection; what is not read closes it."""
    read = 0
    with contextlib.suppress(TimeoutError, httpcore.TimeoutException, *_ERRORS):
        async with asyncio.timeout(_DRAIN_S):
            async for chunk in response.aiter_stream():
                read += len(chunk)
                if read > MAX_ANSWER_BYTES:
                    return


def _retry_after(response: httpcore.Response) -> str | None:
    return next((value.decode("latin-1") for name, value in response.headers if name.lower() == b"retry-after"), None)


def _describe(failure: Exception) -> str:
    """Say in one short line what went wrong: the kind, and what the system said."""
    kind = "name look-up failed" if isinstance(failure, OSError) else type(failure).__name__
    return f"{kind}: {failure}"[:_TEXT_LIMIT].removesuffix(": ")
