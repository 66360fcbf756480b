"""Makes attempts: POSTs a prepared body to a receiver, to a checked address only (contract 5).

Never follows a redirect, never uses a proxy of the environment, never reads more than 16 KiB of an answer.
"""

import contextlib
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, NamedTuple

import anyio
import httpcore
import httpx

from runtime import ssrf_guard, version
from runtime.clock import Steady
from runtime.lookups import Lookups
from webhooks.core.deliveries import Prepared
from webhooks.core.retry import AttemptResult

MAX_ANSWER_BYTES = 16 * 1024
"""Of an answer, its head included. One with a longer head is no answer."""

_DRAIN_S = (
    1.0  # for the answer's body, which people read and we do not: reading it to its end lets the connection be reused
)
_KEEP_ALIVE_S = 4.0  # below the 5 s after which common servers close: a request must not meet a closing connection
_CONNECTIONS = 256  # that rest at once, over all receivers
MAX_AGE_S = 60.0
"""How old a connection may be that is used again: a name that moved is followed by then."""

_ERRORS = (httpcore.NetworkError, httpcore.ProtocolError, OSError)
_TEXT_LIMIT = 200

OriginKey = tuple[bytes, bytes, int]


class HttpSender:
    """The `HttpSender` port on httpcore.

    A connection is made to an address that was checked, with the URL's host in SNI, certificate check and Host; it is
    used again for the same (scheme, host, port), for MAX_AGE_S.
    """

    def __init__(
        self,
        *,
        allow_private: bool,
        resolver: ssrf_guard.Resolver | None = None,
        lookups: Lookups | None = None,
        ssl_context: ssl.SSLContext | None = None,
        steady: Steady = time.monotonic,
    ) -> None:
        """Without a `resolver` the system's is asked, each workspace within its share of `lookups`."""
        self._allow_private = allow_private
        self._resolver = resolver
        self._lookups = lookups or Lookups()
        self._connections = Connections(ssl_context or httpx.create_ssl_context(), steady)

    async def send(self, prepared: Prepared) -> AttemptResult:
        """Make one attempt. Once a status has come it is the outcome, whatever becomes of the rest of the answer."""
        started = time.perf_counter()
        answers: list[_Answer] = []
        error, final = None, False
        try:
            # anyio's timeout, not asyncio's: httpcore shields its own clean-up from anyio's cancellation alone.
            with anyio.fail_after(prepared.timeout_s):
                await self._post(prepared, answers)
        except ssrf_guard.AddressRefusedError as refusal:
            error, final = f"refused: {refusal}", True
        except (TimeoutError, httpcore.TimeoutException):
            error = f"no answer within {prepared.timeout_s:.3g} s"
        except _ERRORS as failure:
            error = _describe(failure)
        duration_ms = round((time.perf_counter() - started) * 1000)
        if answers:
            head, body = answers[0]
            return AttemptResult(head.status, None, duration_ms, _retry_after(head), answer=_text(body))
        return AttemptResult(None, error, duration_ms, final=final)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._connections.aclose()

    async def _post(self, prepared: Prepared, answers: "list[_Answer]") -> None:
        place = ssrf_guard.parse_url(prepared.url, allow_private=self._allow_private)
        scheme, host = place.scheme.encode(), place.host.encode()
        headers = [
            ("Host", place.authority),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(prepared.body))),
            ("User-Agent", version.user_agent("tollgate-webhooks")),
            *prepared.headers.items(),
        ]
        url = httpcore.URL(scheme=scheme, host=host, port=place.port, target=place.target.encode())
        # As curl does: a trailing dot, which says that the name is whole, is none of the name in SNI and certificates.
        named = {"sni_hostname": place.host.removesuffix(".")}
        request = httpcore.Request("POST", url, headers=headers, content=prepared.body, extensions=named)
        resolver = self._resolver or self._lookups.of(prepared.workspace_id)
        network = CheckedNetwork(allow_private=self._allow_private, resolver=resolver)
        async with self._connections.one(httpcore.Origin(scheme, host, place.port), network) as connection:
            response = await connection.handle_async_request(request)
            answer = _Answer(response, bytearray())
            answers.append(answer)
            await _drain(answer)


class Connections:
    """Open connections that rest, by origin.

    httpcore's own pool looks at every connection for every request, and gives one resting connection to several
    requests at once: with 80 requests in flight to one origin it managed 100 a second.
    """

    def __init__(self, ssl_context: ssl.SSLContext, steady: Steady) -> None:
        self._ssl_context = ssl_context
        self._steady = steady
        self._resting: OrderedDict[OriginKey, list[_Aged]] = OrderedDict()
        self._count = 0

    @contextlib.asynccontextmanager
    async def one(
        self, origin: httpcore.Origin, network: httpcore.AsyncNetworkBackend
    ) -> AsyncIterator[httpcore.AsyncHTTPConnection]:
        """Return a connection for one request, made over `network` where none rests.

        It is kept where the request left it good, else closed.
        """
        aged = await self._take(origin, network)
        connection, good = aged.connection, False
        try:
            yield connection
            good = True
        finally:
            with anyio.CancelScope(shield=True):
                if good and connection.is_idle():
                    await self._keep(origin, aged)
                else:
                    await connection.aclose()

    async def aclose(self) -> None:
        """Close what rests."""
        while self._resting:
            await self._remove(next(iter(self._resting)), 0).connection.aclose()

    async def _take(self, origin: httpcore.Origin, network: httpcore.AsyncNetworkBackend) -> "_Aged":
        place = _origin_key(origin)
        while place in self._resting:
            aged = self._remove(place, -1)
            if not aged.connection.has_expired() and self._steady() - aged.since_s < MAX_AGE_S:
                return aged
            await aged.connection.aclose()
        connection = httpcore.AsyncHTTPConnection(
            origin, ssl_context=self._ssl_context, keepalive_expiry=_KEEP_ALIVE_S, network_backend=network
        )
        return _Aged(connection, self._steady())

    async def _keep(self, origin: httpcore.Origin, aged: "_Aged") -> None:
        place = _origin_key(origin)
        self._resting.setdefault(place, []).append(aged)
        self._resting.move_to_end(place)
        self._count += 1
        while self._resting:
            oldest, resting = next(iter(self._resting.items()))
            if self._count <= _CONNECTIONS and not resting[0].connection.has_expired():
                return
            await self._remove(oldest, 0).connection.aclose()

    def _remove(self, place: OriginKey, index: int) -> "_Aged":
        resting = self._resting[place]
        aged = resting.pop(index)
        self._count -= 1
        if not resting:
            del self._resting[place]
        return aged


class _Aged(NamedTuple):
    """A connection, and since when there is one."""

    connection: httpcore.AsyncHTTPConnection
    since_s: float


class _LookUpError(OSError):
    """A host's name could not be looked up."""


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses alone, each read in bounds."""

    def __init__(self, *, allow_private: bool, resolver: ssrf_guard.Resolver | None = None) -> None:
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
        """Resolve, check all, connect to the first that answers. Raise RefusedError, OSError, httpcore's errors."""
        try:
            addresses = await ssrf_guard.resolve(host, port, allow_private=self._allow_private, resolver=self._resolver)
        except OSError as error:
            raise _LookUpError(str(error)) from error
        *others, last = addresses
        for address in others:
            with contextlib.suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return BoundedStream(
                    await self._network.connect_tcp(address, port, _SHARE_S, local_address, socket_options)
                )
        return BoundedStream(await self._network.connect_tcp(last, port, timeout, local_address, socket_options))

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # the interface's own signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: a receiver is never a local socket."""
        raise ssrf_guard.AddressRefusedError("a receiver must not be a local socket")

    async def sleep(self, seconds: float) -> None:
        """Wait, as the pool asks."""
        await self._network.sleep(seconds)


class BoundedStream(httpcore.AsyncNetworkStream):
    """A connection of which MAX_ANSWER_BYTES are read after each request, by httpcore 64 KiB at a time otherwise."""

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._left = MAX_ANSWER_BYTES

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # as above
        """Read at most `max_bytes`, or what is left. Raise ReadError where nothing is left."""
        if not self._left:
            raise httpcore.ReadError(f"the answer is longer than {MAX_ANSWER_BYTES} bytes")
        data = await self._stream.read(min(max_bytes, self._left), timeout)
        self._left -= len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # as above
        """Send, after which another answer may be read."""
        self._left = MAX_ANSWER_BYTES
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # as above
    ) -> httpcore.AsyncNetworkStream:
        """Return the same connection encrypted; what is bounded is what was decrypted."""
        return BoundedStream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """Tell what httpcore asks of a connection."""
        return self._stream.get_extra_info(info)


_SHARE_S = 2.0  # for one of several addresses, so that a dead one leaves time for the next


class _Answer(NamedTuple):
    """An answer, and what has been read of its body."""

    head: httpcore.Response
    body: bytearray


async def _drain(answer: _Answer) -> None:
    """Read the body, as far as it may be read; what is not read closes the connection."""
    with contextlib.suppress(*_ERRORS), anyio.move_on_after(_DRAIN_S):
        async for chunk in answer.head.aiter_stream():
            answer.body.extend(chunk)
    await answer.head.aclose()


def _text(body: bytes | bytearray) -> str:
    """Return a receiver's words as a database takes them."""
    return body.decode("utf-8", "replace").replace("\0", "\ufffd")


def _origin_key(origin: httpcore.Origin) -> OriginKey:
    return origin.scheme, origin.host, origin.port


def _retry_after(response: httpcore.Response) -> str | None:
    return next((value.decode("latin-1") for name, value in response.headers if name.lower() == b"retry-after"), None)


def _describe(failure: Exception) -> str:
    """Say in one short line what went wrong: the kind, and what the system said.

    Parts of it are the receiver's own words (a certificate's names, a head that cannot be read), so what no database
    and no terminal would take is left out.
    """
    kind = "name look-up failed" if isinstance(failure, _LookUpError) else type(failure).__name__
    # httpcore's own errors are often silent, and what they came of is not: a reset, an alert of TLS.
    said = next((text for one in _chain(failure) if (text := _said(one))), "")
    text = f"{kind}: {said}"[:_TEXT_LIMIT].removesuffix(": ")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _said(failure: BaseException) -> str:
    """Return what an error says, in the system's words where it is the system's: asyncio's hold the address."""
    if isinstance(failure, OSError) and not isinstance(failure, ssl.SSLError) and (failure.errno or 0) > 0:
        return os.strerror(failure.errno or 0)
    return str(failure)


def _chain(failure: BaseException) -> Iterator[BaseException]:
    """Return a failure and what it came of, the nearest first."""
    found: BaseException | None = failure
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
