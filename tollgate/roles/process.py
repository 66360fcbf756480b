"""One serving process: its ports, its background work, and its orderly end (contract 6).

The process ends with the error of the first part that fails.
"""

import asyncio
import gc
import logging
import resource
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from litestar import Litestar
from litestar.handlers import BaseRouteHandler

from runtime import clock, loops, version
from runtime.http import health, server
from runtime.http.bounds import Bounds
from runtime.http.exchange import Routes
from runtime.http.health import Check
from runtime.loops import Loops
from runtime.settings import Settings
from runtime.telemetry import scrape
from runtime.telemetry.metrics import Telemetry
from schemas.monitoring.status import CallCounts, ProcessStatus
from tollgate.roles.status import StatusReporter

SHUTDOWN_GRACE_S = 30
"""How long open streams may go on after SIGTERM (contract 6)."""

_OPS_GRACE_S = 1
_MOST_FILES = 128 * 1024
_FILES_OF_OURS = 128
"""Open files that are no client's: databases, the spool, Kafka's connections, the operator's port."""

Work = Coroutine[Any, Any, None]
Spawn = Callable[[str, Work], None]
"""Begins background work of that name, which goes on as long as the process and says so (`runtime.loops`).

If it ends earlier, or is cancelled by somebody else, the process ends.
"""

COLLECTING_AT_START = (100_000, 50, 1000)
"""How often the garbage collector looks while a snapshot is loaded: hardly ever at what is old, for it only grows."""
_COLLECTING = (700, 10, 10)  # Python's own

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the process listens."""

    public: str | None
    """None: the role has no public port."""
    ops: str


class Role(ABC):
    """What a process does. A role says only what it has: by default it has no port, and nothing to end."""

    title: str
    """Names the process to people."""
    name = "role"
    """Names what it does in its status, in one word."""

    def is_new(self) -> bool:
        """Whether nobody has been onboarded yet, so that the operator is told how; control is to say so."""
        return False

    @abstractmethod
    def checks(self) -> Mapping[str, Check]:
        """Say what must hold before traffic may come."""

    @abstractmethod
    async def start(self, spawn: Spawn) -> None:
        """Begin the background work; return when traffic may come."""

    def public(self, checks: Mapping[str, Check]) -> Litestar | None:
        """Return the application of the public port, once started; None: there is none."""
        return None

    def routes(self) -> Routes:
        """Return what the public port answers without that application."""
        return {}

    def ops(self) -> Sequence[BaseRouteHandler]:
        """Return what the operator's port has beside its health."""
        return ()

    @abstractmethod
    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what this role's parts know, at `/metrics`."""

    def calls(self) -> Sequence[CallCounts]:
        """Return the calls that ended since this was asked last, by group and slug."""
        return ()

    async def tell(self, status: ProcessStatus) -> None:  # noqa: B027 - a role of a test has nobody to tell
        """Hand the process's status to control. May raise what `tollgate.roles.status.Tell` names."""

    async def drain(self) -> None:  # noqa: B027 - most have something, control has not
        """Bring what is under way to its end, in bounded time; no request comes any more."""

    async def close(self) -> None:  # noqa: B027 - the same
        """Let go of files and connections; the background work has ended."""


class Process:
    """Runs one role until SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, role: Role, *, shares_port: bool = False) -> None:
        """`shares_port`: other processes listen on the public port too."""
        self._settings = settings
        self._shares_port = shares_port
        self._role = role
        self._servers: list[tuple[server.Server, asyncio.Task[None]]] = []
        self._background: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ready = False
        self._loops = Loops()
        self._clock = clock.steady()

    async def serve(self, announce: Callable[[Addresses], None]) -> None:
        """Run; `announce` is called when every port is open and traffic may come. Raises what a part failed with."""
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signal_number, self.stop)
        max_connections = _max_connections(_open_files())
        self._loops.watch()
        settings = self._settings
        checks = {"process": self._not_ready, "loops": self._loops.problem, **self._role.checks()}
        telemetry = self._telemetry(checks)
        shown = health.ops_app(checks, [*self._role.ops(), scrape.handler(telemetry)])
        ops = self._open(shown, ops_listener(settings), grace_s=_OPS_GRACE_S)
        try:
            if await self._ends_unstopped(self._role.start(self.spawn)):
                app = self._role.public(checks)
                if app is not None and settings.public_metrics:
                    app.register(scrape.handler(telemetry))
                public = None if app is None else self._open_public(app, Bounds(max_connections=max_connections))
                self._ready = True
                self.spawn("the status", self._status(telemetry, checks).run())
                gc.freeze()  # the snapshot is never garbage: later collections need not look through it
                gc.set_threshold(*_COLLECTING)
                announce(Addresses(public, ops))
                await self._ends_unstopped(asyncio.Event().wait())
        except Exception as error:  # noqa: BLE001 - raised below
            self._failed(error)
        finally:
            self._ready = False
            await self._end()
        if self._failure.done():
            self._failure.result()

    def stop(self) -> None:
        """End it in its order, as SIGTERM does."""
        self._stopping.set()

    def spawn(self, name: str, work: Work) -> None:
        """Begin background work; one that ends before the process does ends the process."""
        self._background.append(self._watched(loops.run(name, work), name))

    def _telemetry(self, checks: Mapping[str, Check]) -> Telemetry:
        telemetry = basic_telemetry(lambda: not any(check() for check in checks.values()))
        self._loops.register_metrics(telemetry)
        self._role.register_metrics(telemetry)
        return telemetry

    def _status(self, telemetry: Telemetry, checks: Mapping[str, Check]) -> StatusReporter:
        role = self._role
        return StatusReporter(
            *(role.name, role.tell),
            clock=self._clock,
            known=self._loops,
            telemetry=telemetry,
            checks=checks,
            calls=role.calls,
        )

    def _open_public(self, app: Litestar, bounds: Bounds) -> str:
        listener, routes = public_listener(self._settings, shared=self._shares_port), self._role.routes()
        return self._open(app, listener, grace_s=SHUTDOWN_GRACE_S, routes=routes, bounds=bounds)

    def _open(self, app: Litestar, listener: socket.socket, **options: Any) -> str:
        one = server.Server(app, listener, **options)
        self._servers.append((one, self._watched(one.run_until_stopped(), "the server of a port")))
        return server.address_of(listener)

    def _watched(self, work: Work, name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None and not self._stopping.is_set():
            # A library may cancel what it was called in: then nobody has failed, and nothing is done any more.
            how = "was cancelled, though the process goes on" if task.cancelled() else "ended by itself"
            error = RuntimeError(f"{task.get_name()} {how}")
        if error is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        """Keep the first failure, which the process ends with; log every other."""
        if not self._failure.done():
            self._failure.set_exception(error)
        elif error is not self._failure.exception():
            log.error("another part failed", exc_info=error)

    async def _ends_unstopped(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Run `work` to its end; return False where the process was asked to stop before."""
        own, stopping = asyncio.create_task(work), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([own, stopping, self._failure], return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            if own.done():
                own.result()
                return True
            return False
        finally:
            for error in await _cancelled([own, stopping]):
                log.error("a part failed while the process stopped", exc_info=error)

    async def _end(self) -> None:
        self._stopping.set()
        (ops, ops_run), *public = self._servers
        steps: Sequence[Callable[[], Coroutine[Any, Any, Any]]] = (
            partial(_stop_public, [one for one, _ in public], [run for _, run in public]),
            self._role.drain,
            partial(_cancelled, self._background),
            self._role.close,
            partial(server.stop_all, [ops], [ops_run]),
        )
        for step in steps:  # each, whatever the one before did
            try:
                await step()
            except Exception as error:  # noqa: BLE001 - it is kept, or logged
                self._failed(error)

    def _not_ready(self) -> str | None:
        return None if self._ready else "starting or stopping"


def basic_telemetry(is_ready: Callable[[], bool]) -> Telemetry:
    """Return what every process shows: its version, and whether traffic may come."""
    telemetry = Telemetry()
    build = {version.current(): 1}
    telemetry.gauge("tollgate_build_info", "Always 1; the label tells the version that runs.", lambda: build, "version")
    telemetry.gauge("tollgate_ready", "1 while traffic may come (as /readyz says), else 0.", is_ready)
    return telemetry


def public_listener(settings: Settings, *, shared: bool = False) -> socket.socket:
    """Listen on the public port, `shared` with other processes of this user. Raise OSError where that cannot be.

    Never another one than the settings say: clients would send their keys to whoever has that.
    """
    try:
        return server.listen(settings.host, settings.port, shared=shared)
    except OSError as error:
        raise OSError(f"{error}; --host and --port choose where management and inference listen") from error


def ops_listener(settings: Settings) -> socket.socket:
    """Bind the operator's port, a free one where the default is taken. Raise OSError where that cannot be."""
    try:
        return server.listen(settings.ops_host, settings.ops_port)
    except OSError as error:
        if not isinstance(error, server.PortTakenError) or "ops_port" in settings.model_fields_set:
            raise OSError(f"{error}; --ops-host and --ops-port choose the operator's, 0 picks a free one") from error
    listener = server.listen(settings.ops_host, 0)
    log.warning(
        "the operator's default port %d is taken, so it is %s this time; --ops-port chooses one",
        settings.ops_port,
        server.address_of(listener),
    )
    return listener


def _open_files() -> int:
    """Let the process open as many files as it may, and return how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else _MOST_FILES


def _max_connections(files: int) -> int:
    """Return how many clients may be connected, so that each has a file left for its upstream."""
    return max(16, (min(files, _MOST_FILES) - _FILES_OF_OURS) // 2)


async def _stop_public(servers: list[server.Server], runs: list[asyncio.Task[None]]) -> None:
    """Stop them; say in one line how many requests did not end in time."""
    await server.stop_all(servers, runs)
    if cut_off := sum(one.cut_off for one in servers):
        log.warning("%d requests were cut off after %d s", cut_off, SHUTDOWN_GRACE_S)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> list[Exception]:
    """Cancel tasks and wait for them; return what they failed with on their way."""
    under_way = [task for task in tasks if not task.done()]
    for task in under_way:
        task.cancel()
    ended = await asyncio.gather(*under_way, return_exceptions=True)
    return [error for error in ended if isinstance(error, Exception)]
