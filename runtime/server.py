"""Runs ASGI apps on uvicorn inside our own event loop, and the operator's port beside the public one.

Never installs a signal handler: the process that composes the parts decides when it ends.
"""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import uvicorn
from litestar import Litestar, Response, get
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
HEAD_WITHIN_S = 30
CUT_OFF = "tollgate.cut_off"
"""The ASGI extension whose ``call`` ends a connection at once, without sending what is buffered."""

_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

Check = Callable[[], str | None]
"""Says what is missing before the process may take traffic; None: nothing."""


class PortTakenError(OSError):
    """Another process listens on the port; the message names it."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, with bounds on a request's head and a way to cut a client off.

    A head is at most `MAX_HEAD_BYTES` (431) and there within `HEAD_WITHIN_S` of its first byte, or of the connection.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first head."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._head_is_there()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Expect the next head; hand the way to cut off to the application."""
        super().on_message_begin()
        self._expect_head()
        self.scope["extensions"] = {CUT_OFF: {"call": self.transport.abort}}

    def on_headers_complete(self) -> None:
        """Note that the head is there."""
        self._head_is_there()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head that is still not whole."""
        in_head = self._head_timer is not None
        super().data_received(data)
        if in_head and self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_WITHIN_S, self.transport.abort)

    def _head_is_there(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class Server(uvicorn.Server):
    """One listening port. `run` returns after `stop`, when open requests have ended or their time is over."""

    def __init__(self, app: Any, listener: socket.socket, *, grace_s: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http=BoundedProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=grace_s,
            )
        )
        self._listener = listener
        self.cut_off = 0
        """How many requests had not ended when their time was over."""
        logging.getLogger("uvicorn.error").addFilter(_is_news)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the composing process."""
        yield

    async def run_until_stopped(self) -> None:
        """Serve until `stop`."""
        await self.serve(sockets=[self._listener])

    def stop(self) -> None:
        """Accept nothing more; requests under way get their grace."""
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let requests end within their grace, and count those that did not."""
        await super().shutdown(sockets)
        self.cut_off = len(self.server_state.tasks)  # just cancelled; of those that ended none is left here


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what uvicorn says of answers that were cut off, one by one: whoever did that knows."""
    is_cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    said = record.getMessage()
    return not (is_cancelled or "without completing response" in said or "graceful shutdown exceeded" in said)


def listen(host: str, port: int) -> socket.socket:
    """Bind a port, 0 for a free one. Raise PortTakenError where another process has it, else OSError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
        listener.setblocking(False)  # noqa: FBT003 (the standard library's own signature)
    except OSError as error:
        listener.close()
        kind_of_error = PortTakenError if error.errno == errno.EADDRINUSE else OSError
        raise kind_of_error(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Give ``http://host:port`` of a listener."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def health_handlers(checks: Mapping[str, Check]) -> list[HTTPRouteHandler]:
    """Give ``/healthz`` (alive) and ``/readyz`` (may take traffic: every check passes)."""

    @get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz", include_in_schema=False)
    async def readyz() -> Response[dict[str, Any]]:
        missing = {name: problem for name, check in checks.items() if (problem := check()) is not None}
        body = {"status": "not ready", "missing": missing} if missing else {"status": "ready"}
        return Response(body, status_code=503 if missing else 200)

    return [healthz, readyz]


def ops_app(checks: Mapping[str, Check], handlers: Sequence[BaseRouteHandler] = ()) -> Litestar:
    """Give the operator's port: health, and what else the process shows there."""
    return Litestar(route_handlers=[*health_handlers(checks), *handlers], openapi_config=None, logging_config=None)


async def stop_all(servers: list[Server], runs: list[asyncio.Task[None]]) -> None:
    """Stop servers and wait until the last has ended."""
    for server in servers:
        server.stop()
    await asyncio.gather(*runs)
