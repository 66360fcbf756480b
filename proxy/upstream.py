"""Calls upstreams over pyreqwest: one client per origin, connected only to addresses that were checked.

Never follows a redirect, uses a proxy of the environment, decompresses, or sends a client's own headers on.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

from pyreqwest import exceptions
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from proxy.core.calls import BrokenOffError, Failure, UpstreamRequest
from runtime import guard, version

RECHECK_S = 60
"""After this an origin's addresses are looked up and checked again, in the background."""
STALE_S = 180
"""After this the old addresses are used no more, and the request waits for the check."""

_IDLE_CONNECTION_S = 50
_WARN_EVERY_S = 60
_PASSED_HEADERS = ("content-type", "retry-after", "retry-after-ms", "x-should-retry")

_NOTHING_SENT = (Failure.UNREACHABLE, Failure.CONNECT_TOO_SLOW)
_NOT_CONNECTED = "client error (Connect)"
"""How the library names the one kind of failure where no byte was sent: its exceptions are the same for others too."""

log = logging.getLogger(__name__)


class Answer:
    """An upstream's answer, its body not yet read."""

    def __init__(self, request: StreamRequest, response: Response) -> None:
        self._request = request
        self._response = response
        self._reader = response.body_reader
        self.status: int = response.status

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The few headers that may pass to the client."""
        found = ((name, self._header(name)) for name in _PASSED_HEADERS)
        return [(name.encode(), value.encode("ascii")) for name, value in found if value is not None]

    @property
    def is_event_stream(self) -> bool:
        """Whether the body is server-sent events."""
        return (self._header("content-type") or "").lower().startswith("text/event-stream")

    async def read_chunk(self) -> bytes | None:
        """Give what has arrived, as soon as it has; None at the end. Raises BrokenOffError."""
        try:
            chunk = await self._reader.read_chunk()
        except exceptions.PyreqwestError as error:
            raise BrokenOffError(str(error)) from error
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the library loses a cancellation that meets data that is there
            raise asyncio.CancelledError
        return None if chunk is None else chunk.to_bytes()

    async def close(self) -> None:
        """Give the connection back, or end it where the body was not read to its end."""
        await self._request.__aexit__(None, None, None)

    def _header(self, name: str) -> str | None:
        try:
            return self._response.get_header(name)
        except ValueError:  # not ASCII: as good as none
            return None


class _Name(NamedTuple):
    """Names an origin. A lab's and the operator's are two though they be the same place: other rules hold for them."""

    text: str
    """``scheme://host:port``."""
    by_operator: bool


@dataclass(slots=True)
class _Origin:
    """The client of one scheme, host and port."""

    client: Client
    addresses: tuple[str, ...]
    """The first is the one that is called."""
    checked_at: float


class Upstreams:
    """All upstreams of a proxy.

    `read_timeout_s` bounds each wait for bytes, the first ones included; who wants less bounds it himself.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        connect_timeout_s: float,
        read_timeout_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allow_private = allow_private
        self._connect_timeout = timedelta(seconds=connect_timeout_s)
        self._read_timeout = timedelta(seconds=read_timeout_s)
        self._monotonic = monotonic
        self._origins: dict[_Name, _Origin] = {}
        self._retired: list[Client] = []
        self._checks: dict[_Name, asyncio.Task[None]] = {}
        self._warned: dict[_Name, tuple[str, float]] = {}

    async def open(self, request: UpstreamRequest) -> Answer | Failure:
        """Send a request; give the answer once its head is there.

        One more try on a new connection is made only where no byte of the request had been sent. Cancelling this ends
        the wait at once, but the library ends the request only at its head or after `read_timeout_s`.
        """
        failure = Failure.UNREACHABLE
        for _ in range(2):
            outcome = await self._open_once(request)
            if not isinstance(outcome, Failure):
                return outcome
            failure = outcome
            if failure not in _NOTHING_SENT:
                break
        return failure

    async def close(self) -> None:
        """End every connection."""
        for check in self._checks.values():
            check.cancel()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)
        for client in [*self._retired, *(origin.client for origin in self._origins.values())]:
            await client.close()
        self._origins.clear()
        self._retired.clear()

    async def _open_once(self, request: UpstreamRequest) -> Answer | Failure:
        try:
            url = urlsplit(request.url)
            name = _Name(f"{url.scheme}://{url.netloc}", request.by_operator)
            client = await self._client(name, url)
        except (guard.RefusedError, ValueError):  # the latter of a URL that cannot be read at all
            return Failure.REFUSED_ADDRESS
        except OSError as error:
            return Failure.CONNECT_TOO_SLOW if isinstance(error, TimeoutError) else Failure.UNREACHABLE
        builder = (
            client.post(request.url)
            .header("content-type", "application/json")
            .header("x-request-id", request.request_id)
            .streamed_read_buffer_limit(0)  # else the first byte waits for a full buffer (design 4.2)
            .body_bytes(request.body)
        )
        if request.credential is not None:
            builder = builder.bearer_auth(request.credential)
        sent = builder.build_streamed()
        try:
            return Answer(sent, await sent.__aenter__())
        except exceptions.PyreqwestError as error:
            causes = _causes(error)
            failure = _failure(error, causes)
            if failure in _NOTHING_SENT:
                self._turn(name, url, client)
            self._warn(name, f"{failure.value} ({causes[-1] if causes else error})")
            return failure

    def _warn(self, name: _Name, problem: str) -> None:
        """Say what is wrong with an upstream, the same of the same one at most every `_WARN_EVERY_S`."""
        now = self._monotonic()
        said, at = self._warned.get(name, ("", now))
        if problem != said or now - at >= _WARN_EVERY_S:
            self._warned[name] = (problem, now)
            log.warning("upstream %s: %s", name.text, problem)

    async def _client(self, name: _Name, url: SplitResult) -> Client:
        origin = self._origins.get(name)
        age = self._monotonic() - origin.checked_at if origin else STALE_S
        if age >= RECHECK_S:
            check = self._checks.get(name) or self._begin_check(name, url)
            if age >= STALE_S:
                await asyncio.shield(check)  # others may wait for it too
        return self._origins[name].client

    def _begin_check(self, name: _Name, url: SplitResult) -> asyncio.Task[None]:
        check = self._checks[name] = asyncio.create_task(self._check(name, url))
        check.add_done_callback(lambda done: self._checked(name, done))
        return check

    def _checked(self, name: _Name, check: asyncio.Task[None]) -> None:
        del self._checks[name]
        if not check.cancelled() and (error := check.exception()) is not None:  # the old addresses hold until STALE_S
            self._warn(name, f"its addresses may not be called or are not known: {error or type(error).__name__}")

    async def _check(self, name: _Name, url: SplitResult) -> None:
        """Look an origin's addresses up; its client stays while the address that it calls is still among them."""
        # Read anew, strictly: where two readers of a URL differ (a backslash, a user name), the library would call
        # another host than the one that was checked. A lab's URL is judged at each check, not only when it is stored:
        # what was allowed then may be allowed no longer. The operator's own may be http, and name a port.
        allowed = name.by_operator or self._allow_private
        host, port = guard.parse_url(f"{name.text}/", allow_private=allowed)[1:3]
        async with asyncio.timeout(self._connect_timeout.total_seconds()):
            found = await guard.resolve(host, port, allow_private=self._allow_private)
        origin = self._origins.get(name)
        if origin is not None and origin.addresses[0] in found:
            current = origin.addresses[0]
            origin.addresses = (current, *(address for address in found if address != current))
            origin.checked_at = self._monotonic()
            return
        if origin is not None:
            self._retire(origin.client)
        client = self._build(url.hostname or "", port, found[0])
        self._origins[name] = _Origin(client, tuple(found), self._monotonic())

    def _turn(self, name: _Name, url: SplitResult, failed: Client) -> None:
        """Let an origin's next address be the one that is called, unless another request has turned already."""
        origin = self._origins[name]
        if len(origin.addresses) > 1 and origin.client is failed:
            self._retire(origin.client)
            origin.addresses = (*origin.addresses[1:], origin.addresses[0])
            origin.client = self._build(url.hostname or "", _port(url), origin.addresses[0])

    def _retire(self, client: Client) -> None:
        # requests under way keep it; the pool itself ends idle connections
        self._retired = [*self._retired[-7:], client]

    def _build(self, host: str, port: int, address: str) -> Client:
        builder = (
            ClientBuilder()
            .no_proxy()
            .follow_redirects(False)
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .http1_only()
            .http1_lower_case_headers()
            .tcp_nodelay(True)
            .user_agent(version.user_agent("tollgate"))
            .connect_timeout(self._connect_timeout)
            .read_timeout(self._read_timeout)
            .pool_idle_timeout(timedelta(seconds=_IDLE_CONNECTION_S))
        )
        # the library keeps one address a host: the others take their turn where the first is not reachable
        return builder.resolve(host, address, port).build()


def _causes(error: exceptions.PyreqwestError) -> list[str]:
    causes = error.details["causes"] if isinstance(error, exceptions.RequestError) else None
    return [cause["message"] for cause in causes or ()]


def _failure(error: exceptions.PyreqwestError, causes: list[str]) -> Failure:
    slow = isinstance(error, TimeoutError)
    if _NOT_CONNECTED in causes:
        return Failure.CONNECT_TOO_SLOW if slow else Failure.UNREACHABLE
    return Failure.TOO_SLOW if slow else Failure.BROKE_OFF


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)
