"""The embedded default: control, proxy, metering and webhooks in one process on SQLite."""

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from typing import Any

from litestar import Litestar

from control import app as control_app
from control.reconciliations import Reconciliations
from control.request_keeper import RequestKeeper
from control.retention import Retention
from control.store import corrections, snapshot
from control.store.monitoring import status as statuses
from control.store.workspaces import SqlWorkspaces
from domain.sources import EventSource
from metering import app as metering_app
from metering.core.decisions import Part
from metering.retention import LedgerRetention
from metering.store import events
from metering.store.alerts import SqlAlerts
from metering.store.ledger_view import SqlLedgerView
from metering.thresholds import GroupThresholds
from proxy.app import Proxy
from proxy.core.calls import SpoolUnavailableError
from proxy.limits import counters
from proxy.spool import file as spool_file
from proxy.spool.retention import SpoolRetention
from runtime import clock, version
from runtime.config.lag import Propagation
from runtime.config.relay import Relay
from runtime.http import health
from runtime.http.exchange import Routes
from runtime.http.health import Check
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from schemas.monitoring.status import CallCounts, ProcessStatus
from tollgate import installation
from tollgate.installation import Installation, InstallationError
from tollgate.reconciliation.runs import BackgroundReconcile
from tollgate.roles import base
from tollgate.roles.process import Role, Spawn
from webhooks import app as webhooks_app

METERING_INTERVAL_S = 0.1
"""Between two batches, at least: the one proxy knows its own part of every sum, so a late decision costs no exactness
here, while each transaction costs the hot path about a millisecond of the interpreter."""

log = logging.getLogger(__name__)


def prepare(loaded: Settings, closing: ExitStack) -> Callable[[], Role]:
    """Lock and open the data directory, made where there is none. Raise InstallationError."""
    closing.enter_context(installation.locked(loaded.data_dir))
    place = closing.enter_context(installation.opened(loaded, new=True))
    installation.check_master_key(place)
    return lambda: Embedded(place)


class Embedded(Role):
    """The role of one process over one data directory, which the caller has locked and opened."""

    name = "embedded"

    def __init__(self, place: Installation) -> None:
        settings = place.settings
        self._place = place
        self.title = place.where
        self._clock = clock.steady()
        self._traces = base.traces(self.name)
        try:
            self._proxy = Proxy(settings, place.folder, place.vault, self._clock, self._traces)
        except spool_file.SpoolFileError as error:
            raise InstallationError(f"a spool in {place.folder} cannot be read: {error}") from error
        self._thresholds = GroupThresholds()
        self._metering = self._counting()
        spools = [file.topic for file in self._files()]
        given = (place.database, place.vault, self._clock, settings)
        self._dispatcher = webhooks_app.Dispatcher(
            *given, ledger=SqlLedgerView(), alerts=SqlAlerts(), spools=spools, traces=self._traces
        )
        self._corrections = corrections.Outbox(place.database)
        subscribers = [self._proxy.apply, self._thresholds.apply, self._dispatcher.apply]
        at = place.read(lambda connection: snapshot.load(connection, *subscribers))
        self._propagation = Propagation(self._clock)
        self._relay = Relay(place.database, at, [*subscribers, self._propagation.applied])
        self._retention = Retention(
            place.database,
            self._clock,
            audit_days=settings.audit_days,
            ledger_days=settings.ledger_days,
            taken=corrections.taken,
            relayed=lambda: self._relay.version,
        )
        self._requests = RequestKeeper(place.database)
        self._reconciliations = Reconciliations(place.database, self._clock, BackgroundReconcile(place, self._clock))
        self._spool_retention = SpoolRetention(self._proxy.spool, self._proxy.older_files, self._done_before)
        self._counted_retention = LedgerRetention(
            place.database, self._clock, ledger_days=settings.ledger_days, spools=spools
        )

    def _counting(self) -> metering_app.EmbeddedMetering:
        return metering_app.EmbeddedMetering(
            self._place.database,
            self._thresholds,
            metering_app.Handover(self._take_parts),
            self._clock,
            on_whole=self._proxy.take_whole,
            min_interval_s=METERING_INTERVAL_S,
            traces=self._traces,
        )

    def is_new(self) -> bool:
        """Ask the database."""
        return not self._place.read(lambda connection: SqlWorkspaces(connection).every())

    def checks(self) -> Mapping[str, Check]:
        """Ask the spool: the rest is there once `start` has returned."""
        return {"spool": lambda: self._proxy.spool.blocked}

    async def start(self, spawn: Spawn) -> None:
        """Put back what an earlier process left, then follow."""
        await self._recover()
        for name, work in self._background().items():
            spawn(name, work())

    def public(self, checks: Mapping[str, Check]) -> Litestar:
        """Return management and inference on one port."""
        place = self._place
        management = control_app.handlers(
            control_app.desk(
                *(place.database, place.vault, self._clock, place.settings, self._in_force),
                reconciliations=self._reconciliations,
            )
        )
        return Litestar(
            route_handlers=[*management, *self._proxy.handlers(), *health.health_handlers(checks)],
            openapi_config=control_app.openapi_config(version.current()),
            exception_handlers=control_app.UNROUTED,
            middleware=[control_app.host_wall(place.database, place.settings)],
            logging_config=None,
        )

    def routes(self) -> Routes:
        """Return the calls that are counted."""
        return self._proxy.routes()

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what all parts know."""
        self._proxy.register_metrics(telemetry)
        self._dispatcher.register_metrics(telemetry, lambda: self._lag(self._dispatcher.committed))
        self._propagation.register_metrics(telemetry, lambda: self._relay.version)
        self._relay.register_metrics(telemetry)
        telemetry.counter(
            "tollgate_metering_events_total",
            "Usage events counted, repeats among them.",
            lambda: self._metering.counted,
        )
        telemetry.counter(
            "tollgate_metering_unreadable_total",
            "Usage events left out: the ledger no longer takes any of their days.",
            lambda: self._metering.left_out,
        )
        telemetry.gauge(
            "tollgate_metering_lag_events",
            "Usage events still to count, by spool.",
            lambda: self._lag(self._metering.committed),
            "partition",
        )

    def calls(self) -> Sequence[CallCounts]:
        """Ask the tally of requests."""
        return self._proxy.requests.tally.take()

    async def tell(self, status: ProcessStatus) -> None:
        """Keep it."""
        await self._place.database.write(partial(statuses.keep, records=[status]))

    async def drain(self) -> None:
        """Let the readers take what was spooled last, and attempts end."""
        await self._spool_retention.read_to_end()
        await self._requests.keep(self._proxy.requests.take())
        await self._dispatcher.drain(self._place.settings.webhook_attempt_timeout_s + 1)

    async def close(self) -> None:
        """Close connections and files."""
        try:
            await self._dispatcher.close()
        finally:  # it writes what the spool has not written yet
            await self._proxy.close()
            await base.close_traces(self._traces)

    async def _recover(self) -> None:
        today = self._clock().date()
        await self._metering.hand_over([today, today - timedelta(days=1)], self._take_parts)
        await self._dispatcher.take_over()
        try:
            interrupted = await self._proxy.recover(self._is_counted)
        except SpoolUnavailableError as error:
            raise InstallationError(f"what was in flight when the last process died cannot be kept: {error}") from error
        if interrupted:
            log.warning("%d requests were in flight when the last process died; they are billed", len(interrupted))

    async def _in_force(self) -> None:
        """Return when the last change is in force, and what the month had before a new limit on it is known."""
        await self._relay.in_force()
        await self._metering.tell_months()

    def _take_parts(self, parts: Sequence[Part]) -> None:
        for part in parts:
            (day, group, slug), total = part.total.counter, part.total
            told = counters.LanePart(
                total.version, part.at, total.requests, total.tokens, total.output_tokens, total.cost
            )
            self._proxy.take_part(group, slug, day, part.lane, told, part.unit)

    async def _is_counted(self, key: str) -> bool:
        return await self._place.database.read(lambda connection: events.find(connection, key)) is not None

    def _background(self) -> Mapping[str, Callable[[], Coroutine[Any, Any, None]]]:
        works: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "the configuration's relay": self._relay.run,
            "webhook dispatch": self._dispatcher.run,
            "the spool's trimming": self._spool_retention.run,
            "control's retention": self._retention.run,
            "the requests that did not go well": partial(self._requests.run, self._proxy.requests.take),
            "the console's reconciliation": self._reconciliations.run,
            "metering's retention": self._counted_retention.run,
            **self._proxy.background(),
        }
        sources: Sequence[EventSource] = (*self._files(), self._corrections)
        for source in sources:
            works[f"metering of {source.topic}"] = partial(self._metering.follow, source)
            works[f"webhook intake of {source.topic}"] = partial(self._dispatcher.follow, source)
        return works

    def _files(self) -> Sequence[spool_file.SpoolFile]:
        return (*self._proxy.older_files, self._proxy.spool.file)

    def _lag(self, committed: Callable[[str, int], int]) -> dict[str, int]:
        return {file.topic: max(0, file.end - committed(file.topic, file.index)) for file in self._files()}

    def _done_before(self, file: spool_file.SpoolFile) -> int:
        place = (file.topic, file.index)
        return min(self._metering.committed(*place), self._dispatcher.committed(*place))
