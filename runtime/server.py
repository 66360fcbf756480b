"""Runs ASGI apps on uvicorn inside our own event loop, and the operator's port beside the public one.

Never installs a signal handler: the process that composes the parts decides when it ends.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import uvicorn
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler

Check = Callable[[], str | None]
"""Says what is missing before the process may take traffic; None: nothing."""


class Server(uvicorn.Server):
    """One listening port. `run` returns after `stop`, when open requests have ended or their time is over."""

    def __init__(self, app: Any, listener: socket.socket, *, grace_s: int) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="none",
                http="httptools",
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


def listen(host: str, port: int) -> socket.socket:
    """Bind a port, 0 for a free one. Raises OSError where that cannot be."""
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
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
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


def ops_app(checks: Mapping[str, Check]) -> Litestar:
    """Give the operator's port."""
    return Litestar(route_handlers=health_handlers(checks), openapi_config=None, logging_config=None)


async def stop_all(servers: list[Server], runs: list[asyncio.Task[None]]) -> None:
    """Stop servers and wait until the last has ended."""
    for server in servers:
        server.stop()
    await asyncio.gather(*runs)
