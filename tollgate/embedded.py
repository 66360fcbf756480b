"""The embedded default: control, proxy, metering and webhooks in one process on SQLite (design 1).

Never does any of their work: it hands one part's output to the next in memory, and ends the process when one fails.
"""

import asyncio
import gc
import logging
import signal
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from typing import Any

from litestar import Litestar

from control import app as control_app
from control.relay import Relay
from control.store import corrections, live
from metering import app as metering_app
from metering import ledger
from metering.groups import GroupThresholds
from proxy import spool_file
from proxy.app import Proxy
from proxy.core.exchange import SpoolUnavailableError
from runtime import clock, server
from schemas.config import ConfigChange
from tollgate.workplace import Workplace, WorkplaceError
from webhooks import app as webhooks_app

SHUTDOWN_GRACE_S = 30
"""How long open streams may go on after SIGTERM (spec 6)."""

ATTEMPT_GRACE_S = 11
"""How long attempts under way may go on: one takes at most 10 s (spec 5)."""

METERING_INTERVAL_S = 0.1
"""Between two batches: the one proxy knows its own part of every sum, so a late decision costs no exactness here,
while each transaction costs the hot path about a millisecond of the interpreter."""

_TRIM_EVERY_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the process listens."""

    public: str
    ops: str


class Embedded:
    """One process over one data directory, which the caller has locked and opened."""

    def __init__(self, workplace: Workplace) -> None:
        settings = workplace.settings
        self._workplace = workplace
        self._clock = clock.steady()
        try:
            self._proxy = Proxy(settings, workplace.folder, self._clock)
        except sqlite3.DatabaseError as error:
            raise WorkplaceError(f"a spool in {workplace.folder} cannot be read: {error}") from error
        self._thresholds = GroupThresholds()
        self._metering = metering_app.EmbeddedMetering(
            workplace.database,
            self._thresholds,
            metering_app.Handover(self._proxy.decide),
            self._clock,
            min_interval_s=METERING_INTERVAL_S,
        )
        self._dispatcher = webhooks_app.Dispatcher(workplace.database, workplace.vault, self._clock, settings)
        self._corrections = corrections.Outbox(workplace.database)
        at, changes = workplace.read(live.snapshot)
        self._relay = Relay(workplace.database, at, [self._apply])
        for change in changes:
            self._apply(change)
        self._ready = False

    async def serve(self, announce: Callable[[Addresses], None]) -> None:
        """Run until SIGTERM or SIGINT; `announce` is called when the ports are open and traffic may come."""
        settings = self._workplace.settings
        stopping = asyncio.Event()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signal_number, stopping.set)
        await self._recover()
        public = server.listen(settings.host, settings.port)
        ops = server.listen(settings.ops_host, settings.ops_port)
        checks = {"process": self._not_ready, "spool": lambda: self._proxy.spool.blocked}
        servers = [
            server.Server(self._public_app(checks), public, grace_s=SHUTDOWN_GRACE_S),
            server.Server(server.ops_app(checks), ops, grace_s=1),
        ]
        runs = [asyncio.create_task(one.run_until_stopped()) for one in servers]
        background = [asyncio.create_task(work()) for work in self._background()]
        self._ready = True
        gc.freeze()  # the snapshot is never garbage: later collections need not look through it
        announce(Addresses(server.address_of(public), server.address_of(ops)))
        try:
            await self._until(stopping, [*runs, *background])
        finally:
            self._ready = False
            await server.stop_all(servers, runs)
            await self._drain()
            await self._dispatcher.drain(ATTEMPT_GRACE_S)
            for task in background:
                task.cancel()
            for ended in await asyncio.gather(*background, return_exceptions=True):
                if isinstance(ended, Exception):
                    log.error("a part failed while the process stopped", exc_info=ended)
            await self._dispatcher.close()
            await self._proxy.close()

    def _apply(self, change: ConfigChange) -> None:
        self._proxy.apply(change)
        self._thresholds.apply(change)
        self._dispatcher.apply(change)

    async def _recover(self) -> None:
        today = self._clock().date()
        self._proxy.decide(await self._metering.decisions_for([today, today - timedelta(days=1)]))
        await self._dispatcher.take_over()
        try:
            interrupted = await self._proxy.recover(self._is_counted)
        except SpoolUnavailableError as error:
            raise WorkplaceError(f"what was in flight when the last process died cannot be kept: {error}") from error
        if interrupted:
            log.warning("%d requests were in flight when the last process died; they are billed", len(interrupted))

    async def _is_counted(self, key: str) -> bool:
        return await self._workplace.database.read(lambda connection: ledger.find(connection, key)) is not None

    def _public_app(self, checks: dict[str, server.Check]) -> Litestar:
        place = self._workplace
        management = control_app.build(place.database, place.vault, self._clock, place.settings, self._relay.poke)
        return Litestar(
            route_handlers=[management, *self._proxy.handlers(), *server.health_handlers(checks)],
            openapi_config=control_app.openapi_config(version("tollgate-gateway")),
            exception_handlers=control_app.UNROUTED,
            logging_config=None,
        )

    def _background(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        works: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._relay.run,
            self._dispatcher.run,
            self._trim,
            *self._proxy.background(),
        ]
        for source in (*self._files(), self._corrections):
            works.append(lambda source=source: self._metering.follow(source))  # type: ignore[misc]
            works.append(lambda source=source: self._dispatcher.follow(source))  # type: ignore[misc]
        return works

    def _files(self) -> Sequence[spool_file.SpoolFile]:
        return (*self._proxy.older_files, self._proxy.spool.file)

    async def _trim(self) -> None:
        """Let spool rows go once both readers have committed past them."""
        emptied: list[spool_file.SpoolFile] = []
        while True:
            await asyncio.sleep(_TRIM_EVERY_S)
            self._proxy.spool.trim(self._done_before(self._proxy.spool.file))
            for file in [older for older in self._proxy.older_files if self._done_before(older) >= older.end]:
                if file not in emptied:
                    await file.empty()  # removed at the next start
                    emptied.append(file)

    def _done_before(self, file: spool_file.SpoolFile) -> int:
        place = (file.topic, file.partition)
        return min(self._metering.committed(*place), self._dispatcher.committed(*place))

    async def _until(self, stopping: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
        """Wait for the signal; a part that ends before it ends the process with its error."""
        waiting = asyncio.create_task(stopping.wait())
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in done - {waiting}:
            task.result()
            raise RuntimeError(f"{task.get_coro()} ended by itself")

    async def _drain(self) -> None:
        """Let the readers take what was spooled last; what they do not manage they find at the next start."""
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while any(self._done_before(file) < file.end for file in self._files()):  # noqa: ASYNC110 (bounded)
                    await asyncio.sleep(0.02)

    def _not_ready(self) -> str | None:
        return None if self._ready else "starting or stopping"
