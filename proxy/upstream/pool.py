"""The upstreams of a proxy: sends each request over a connection that is kept, or made to a checked address.

On a kept connection a request costs a dictionary look-up, one write and one future until its answer's head is there.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any

from proxy.core.calls import BrokenOffError, Failure, UpstreamRequest
from proxy.core.replies import Headers
from proxy.upstream import bounds, tls
from proxy.upstream.codings import Decoder
from proxy.upstream.connection import PIECE_BYTES, UpstreamConnection
from proxy.upstream.origins import RECHECK_S, Origin, Origins, UrlParts
from runtime.deadlines import Deadlines
from runtime.lookups import Lookups
from runtime.turns import Turns

MAX_CONNECTIONS = 16_384
"""At once, over all origins."""
MAX_CONNECTIONS_OF_ORIGIN = 8_192

_WITHOUT_BODIES = ("GET", "HEAD", "DELETE")
"""Methods whose requests need no length where they have no body (RFC 9110 8.6)."""
_PASSED_HEADERS = (b"content-type", b"retry-after", b"retry-after-ms", b"x-should-retry")


class HttpAnswer:
    """An upstream's answer, its body not yet read."""

    __slots__ = ("_coding", "_connection", "_decoder", "headers", "is_event_stream", "status")

    def __init__(self, connection: UpstreamConnection) -> None:
        found = connection.headers
        self.status = connection.status
        self.headers: Headers = [
            header for header in found.items() if header[0] in _PASSED_HEADERS and header[1].isascii()
        ]
        """The few headers that may pass to the client."""
        self.is_event_stream = found.get(b"content-type", b"").lower().startswith(b"text/event-stream")
        """Whether its content type says that the body is server-sent events."""
        self._connection: UpstreamConnection | None = connection
        self._coding = found.get(b"content-encoding", b"identity").strip().lower()
        self._decoder: Decoder | None = None

    def pass_header(self, name: bytes) -> None:
        """Let one more of the upstream's headers pass to the client, where it is there."""
        value = self._connection.headers.get(name) if self._connection is not None else None
        if value is not None and value.isascii():
            self.headers.append((name, value))

    def read_chunk(self) -> Coroutine[Any, Any, bytes | None]:
        """Return what has arrived, as soon as anything has; None at the end. Raise BrokenOffError."""
        if self._connection is None:
            raise BrokenOffError("it was closed")
        return self._connection.read() if self._coding == b"identity" else self._read_decoded(self._connection)

    def whole_at_once(self) -> bytes | None:
        """Return the whole body where it is small and has come, and nothing of it was read; None: read it."""
        connection = self._connection
        if connection is None or self._coding != b"identity":
            return None
        return connection.take() if connection.complete and connection.held <= PIECE_BYTES else None

    def expect_end(self) -> None:
        """Say that only the end of the answer is missing: `close` lets it come, so that the connection is kept."""
        if self._connection is not None:
            self._connection.end_expected = True

    async def close(self) -> None:
        """Give the connection back, or end it where the body was not read to its end. Waits for nothing."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release()

    async def _read_decoded(self, connection: UpstreamConnection) -> bytes | None:
        decoder = self._decoder = self._decoder or Decoder(self._coding)
        if (
            piece := decoder.take()
        ):  # from bytes that were there before: however few, they stand for as many as they like
            await connection.turn()
            return piece
        while not piece:
            chunk = await connection.read()
            if chunk is None:
                if not decoder.is_whole:
                    raise BrokenOffError("its content coding is cut short")
                return None
            decoder.feed(chunk)
            piece = decoder.take()
        return piece


class Upstreams:
    """All upstreams of a proxy.

    `read_timeout_s` bounds each wait for bytes, the first ones included; who wants less bounds it himself.
    """

    def __init__(
        self,
        deadlines: Deadlines | None = None,
        *,
        allow_private: bool,
        connect_timeout_s: float,
        read_timeout_s: float,
        ssl_context: ssl.SSLContext | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        lookups: Lookups | None = None,
        max_connections: int = MAX_CONNECTIONS,
        max_connections_of_origin: int = MAX_CONNECTIONS_OF_ORIGIN,
    ) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._ssl_context = ssl_context
        self._monotonic = monotonic
        self._max_connections = max_connections
        self._max_of_origin = max_connections_of_origin
        self._origins = Origins(
            allow_private=allow_private,
            look_up_timeout_s=connect_timeout_s,
            monotonic=monotonic,
            lookups=lookups or Lookups(),
        )
        self._deadlines = deadlines or Deadlines()
        self._turns = Turns()
        self._buffer = bounds.read_buffer()

    async def open(self, request: UpstreamRequest) -> HttpAnswer | Failure:
        """Send a request; return the answer once its head is there.

        No byte of a request is ever sent twice: another connection is tried only while none could be made. Cancelling
        this ends the request at once, and its connection.
        """
        target = self._origins.target(request.url, by_operator=request.by_operator)
        if isinstance(target, Failure):
            return target
        origin = target.origin
        if self._monotonic() - origin.checked_at >= RECHECK_S:
            failure = await self._origins.freshen(origin, request.workspace_id)
            if failure is not None:
                return failure
        connection = origin.take() or await self._connect(origin)
        if isinstance(connection, Failure):
            return connection
        connection.send(_head(target, request), request.body, request.on_sent, holder=request.workspace_id)
        if request.on_sent is not None:
            request.body = b""  # the connection has what is not sent yet
        try:
            while not connection.status and connection.problem is None:
                await connection.change()
        except BaseException:
            connection.end("the request was cancelled")
            raise
        return HttpAnswer(connection) if connection.status else self._failed(origin, connection)

    async def close(self) -> None:
        """End every connection."""
        await self._origins.close()
        open_ = self._origins.connections()
        for connection in open_:
            connection.end("the gateway stops")
        await asyncio.gather(*(connection.change() for connection in open_ if connection.is_made))

    async def _connect(self, origin: Origin) -> UpstreamConnection | Failure:
        """Make a connection to the first of an origin's addresses that can be reached; one alone is tried twice."""
        if not self._has_room(origin):
            self._origins.warn(origin, "as many connections are open as may be")
            return Failure.NO_ROOM
        loop = asyncio.get_running_loop()
        until = loop.time() + self._connect_timeout_s
        turns = origin.addresses if len(origin.addresses) > 1 else origin.addresses * 2
        outcome: UpstreamConnection | Exception = OSError("it has no address")
        for number, address in enumerate(turns):
            left = len(set(turns[number:]))  # each has its share, so that one that is dead leaves time for the next
            share = (until - loop.time()) / left
            outcome = await self._connect_to(origin, address, loop.time() + share)
            if isinstance(outcome, UpstreamConnection):
                origin.call_first(address)
                return outcome
        failure = Failure.CONNECT_TOO_SLOW if isinstance(outcome, TimeoutError) else Failure.UNREACHABLE
        self._origins.warn(origin, f"{failure.value} ({str(outcome) or type(outcome).__name__})")
        return failure

    async def _connect_to(self, origin: Origin, address: str, until: float) -> UpstreamConnection | Exception:
        place = origin.place
        connection = UpstreamConnection(
            origin, address, self._deadlines, self._buffer, self._read_timeout_s, turns=self._turns
        )
        origin.connections.add(connection)
        name = place.host.rstrip(".") if place.scheme == "https" else None
        context = self._tls() if name is not None else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(until):
                await loop.create_connection(lambda: connection, address, place.port, ssl=context, server_hostname=name)
        except BaseException as error:
            origin.forget(connection)
            connection.end("it was not needed any more")
            if isinstance(error, (OSError, ValueError)):  # the latter of a name that TLS cannot ask for
                return error
            raise
        if connection.is_open:
            return connection
        return ConnectionResetError(connection.problem or "it was closed at once")

    def _has_room(self, origin: Origin) -> bool:
        """Return whether one more may be made; a kept one of any origin gives way."""
        if len(origin.connections) >= self._max_of_origin:
            return False
        if self._origins.count < self._max_connections:
            return True
        spare = self._origins.oldest_kept()
        if spare is not None:
            spare.end("others need its place")
        return spare is not None

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:  # reading the roots takes a while, and many proxies need none
            self._ssl_context = tls.client_context()
        return self._ssl_context

    def _failed(self, origin: Origin, connection: UpstreamConnection) -> Failure:
        failure = Failure.TOO_SLOW if connection.too_slow else Failure.BROKE_OFF
        self._origins.warn(origin, f"{failure.value} ({connection.problem})")
        return failure


def _head(target: UrlParts, request: UpstreamRequest) -> bytes:
    begun, envelope = target.head, request.envelope
    if envelope is not None:
        line = f"{envelope.method} {target.path}{envelope.suffix} HTTP/1.1\r\n".encode("ascii")
        begun = line + target.common_lines + envelope.header_lines
    credential = b"" if request.credential is None else b"authorization: Bearer %b\r\n" % request.credential.encode()
    has_length = envelope is None or request.body or envelope.method not in _WITHOUT_BODIES
    return b"%bx-request-id: %b\r\n%b%b%b\r\n" % (
        begun,
        request.request_id.encode(),
        credential,
        request.header_lines,
        b"content-length: %d\r\n" % len(request.body) if has_length else b"",
    )
