"""One listening port: its connections, the clock that walks their bounds, and its orderly end."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote_to_bytes

from runtime.http import asgi
from runtime.http.bounds import Bounds
from runtime.http.connection import Connection
from runtime.http.exchange import PathRoute, Routes
from runtime.turns import Turns

TICK_S = 0.25
"""Between two looks at what is over."""
BACKLOG = 2048
ACCEPTED_A_ROUND = 8
"""New connections at most in one round of the event loop. uvloop takes one from each listener, so there are so many of
the same socket: where a flood makes rounds long and fills the backlog, one in it waits for an eighth of the rounds."""

_CLOSING_S = 1
_LOOKED_AT = 64
"""Connections at most, for one that is taken in where there are as many as may be."""
_NO_METHODS: Mapping[bytes, PathRoute] = {}


class PortTakenError(OSError):
    """Another process listens on the port; the message names it."""


class Server:
    """One listening port. `run_until_stopped` returns after `stop`, when requests have ended or their time is over."""

    def __init__(
        self,
        app: Any,
        listener: socket.socket,
        *,
        grace_s: float,
        routes: Routes | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """`app` is the ASGI application that answers what `routes` does not name."""
        self.bounds = bounds or Bounds()
        self.loop = asyncio.get_running_loop()
        self.turns = Turns()
        self.is_stopping = False
        self.cut_off = 0
        """How many requests had not ended when their time was over."""
        self._listener = listener
        self._grace_s = grace_s
        self._routes = routes or {}
        self._fallback = PathRoute(asgi.AsgiHandler(app))
        self._connections: dict[Connection, None] = {}
        """The oldest first, except for those that were looked at and had a request under way."""
        self._stopped = asyncio.Event()
        self._emptied = asyncio.Event()
        self._clock: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """Return how many connections are open, or have a request that has not ended."""
        return len(self._connections)

    async def run_until_stopped(self) -> None:
        """Serve until `stop`, then until requests under way have ended, or their grace is over."""
        doors = [self._listener, *(self._listener.dup() for _ in range(ACCEPTED_A_ROUND - 1))]
        accepting = [
            await self.loop.create_server(lambda: Connection(self), sock=door, backlog=BACKLOG) for door in doors
        ]
        self._tick()
        try:
            await self._stopped.wait()
        finally:
            for door in accepting:
                door.close()
            await self._end()

    def stop(self) -> None:
        """Accept nothing more; requests under way get their grace."""
        self._stopped.set()

    # --- what connections ask

    def opened(self, connection: Connection) -> bool:
        """Take a connection in; return False where there are too many and none that is idle gives way."""
        has_room = len(self._connections) < self.bounds.max_connections or self._make_room()
        self._connections[connection] = None
        return has_room

    def forget(self, connection: Connection) -> None:
        """Let go of a connection that has ended and whose request is over."""
        self._connections.pop(connection, None)
        if self.is_stopping and not self._connections:
            self._emptied.set()

    def route(self, method: bytes, target: bytes) -> PathRoute:
        """Return what answers a request: by its target as it stands, else by the path that it means."""
        methods = self._routes.get(target)
        if methods is None and self._routes:
            path = asgi.split(target)[0]
            first = path[: path.find(b"/", 1) + 1]
            methods = self._routes.get(unquote_to_bytes(path).rstrip(b"/")) or self._routes.get(first)
        return (methods or _NO_METHODS).get(method, self._fallback)

    def _make_room(self) -> bool:
        """End the oldest connection without a request: who holds many must not keep others out."""
        for connection in list(islice(self._connections, _LOOKED_AT)):
            del self._connections[connection]
            if connection.give_way():
                return True
            self._connections[connection] = None
        return False

    # --- time

    def _tick(self) -> None:
        self._clock = self.loop.call_later(TICK_S, self._tick)
        now = self.loop.time()
        for connection in list(self._connections):
            connection.tick(now)

    async def _end(self) -> None:
        self.is_stopping = True
        for connection in list(self._connections):
            connection.stop()
        try:
            await self._wait_until_empty(self._grace_s)
            running = [each.running for each in self._connections if each.running is not None]
            self.cut_off = len(running)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for connection in list(self._connections):
                connection.transport.abort()
            await self._wait_until_empty(_CLOSING_S)
        finally:
            if self._clock is not None:
                self._clock.cancel()

    async def _wait_until_empty(self, within_s: float) -> None:
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), within_s)


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Bind a port, 0 for a free one, and listen. Raise PortTakenError where another process has it, else OSError.

    `shared`: other processes of this user that say so too may listen on it; the system deals connections out.
    """
    listener = reserve(host, port, shared=shared)
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _unusable(error, host, port) from error
    return listener


def reserve(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Bind a port as `listen` does, and do not listen: no connection comes to it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
        bound.setblocking(False)  # noqa: FBT003 (the standard library's own signature)
    except OSError as error:
        bound.close()
        raise _unusable(error, host, port) from error
    return bound


def _unusable(error: OSError, host: str, port: int) -> OSError:
    kind_of_error = PortTakenError if error.errno == errno.EADDRINUSE else OSError
    return kind_of_error(f"cannot listen on {host}:{port}: {error.strerror}")


def address_of(listener: socket.socket) -> str:
    """Return ``http://host:port`` of a listener."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def stop_all(servers: list[Server], runs: list[asyncio.Task[None]]) -> None:
    """Stop servers and wait until the last has ended."""
    for server in servers:
        server.stop()
    await asyncio.gather(*runs)
