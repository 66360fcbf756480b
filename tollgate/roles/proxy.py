"""`tollgate serve proxy`: the inference API, its spool, and what it hears from control and metering."""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from litestar import Litestar
from litestar.handlers import BaseRouteHandler

from proxy.app import Proxy
from proxy.core.calls import SpoolUnavailableError
from proxy.spool import file as spool_file
from proxy.topic import report as spool_report
from proxy.topic.decisions import DecisionsBySequenceFeed, DecisionsFeed
from proxy.topic.in_flight import InFlightFeed, InFlightTeller
from proxy.topic.requests import RequestPublisher
from runtime import clock
from runtime.config import records as config_records
from runtime.config.feed import ConfigFeed
from runtime.database.engines import Database
from runtime.http import health
from runtime.http.exchange import Routes
from runtime.http.health import Check
from runtime.kafka import feed
from runtime.kafka.reader import LogReader
from runtime.kafka.writer import Kafka, Writer
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from runtime.vault import Vault
from schemas.config import ConfigChange, ConfigKind
from schemas.decisions import HeardDecision, Spread, Whole
from schemas.monitoring.status import CallCounts, ProcessStatus
from schemas.topics import LIMITS_DECISIONS_V1, USAGE_EVENTS
from tollgate import installation
from tollgate.installation import InstallationError
from tollgate.roles import base
from tollgate.roles.process import Role, Spawn
from tollgate.roles.status import StatusTopic

PUBLISH_GRACE_S = 10
"""How long a stopping proxy may go on publishing; the rest waits in the spool for the next start."""

_LEAVES_WITHIN_S = 60.0
"""How long a proxy that leaves waits before it looks again whether all is published."""
_KINDS = config_records.EVERY_KIND - {ConfigKind.WEBHOOK}

log = logging.getLogger(__name__)


def prepare(loaded: Settings, closing: ExitStack) -> Callable[[], "ProxyRole"]:
    """Lock the data directory. Raise InstallationError, VaultError."""
    return _prepared(ProxyRole, loaded, closing)


def prepare_leaving(loaded: Settings, closing: ExitStack) -> Callable[[], "ProxyRole"]:
    """Do the same for a proxy that only publishes what an earlier one has left there."""
    return _prepared(LeavingRole, loaded, closing)


def _prepared(role: type["ProxyRole"], loaded: Settings, closing: ExitStack) -> Callable[[], "ProxyRole"]:
    closing.enter_context(installation.locked(loaded.data_dir))
    vault = Vault(installation.given_key(loaded))
    database = installation.shared_database(loaded, closing)[0] if loaded.database_url else None
    return lambda: role(loaded, vault, database)


class ProxyRole(Role):
    """The role; any number of processes may have it, each with a data directory of its own."""

    name = "proxy"

    def __init__(self, loaded: Settings, vault: Vault, database: Database | None) -> None:
        self.title = f"the inference API with its spool in {loaded.data_dir}"
        self._settings = loaded
        self._clock = clock.steady()
        self._traces = base.traces(self.name)
        self._kafka = Kafka.of(loaded)
        self._status = StatusTopic(self._kafka)
        try:
            self._proxy = Proxy(loaded, loaded.data_dir, vault, self._clock, self._traces)
        except spool_file.SpoolFileError as error:
            raise InstallationError(f"a spool in {loaded.data_dir} cannot be read: {error}") from error
        self._config = ConfigFeed(self._kafka, self._apply, database, self._clock, kinds=_KINDS)
        self._decisions = DecisionsFeed(self._kafka, self._take_decisions, self._clock)
        self._by_sequence = DecisionsBySequenceFeed(self._kafka, self._proxy.take_decisions_by_sequence, self._clock)
        self._writer = Writer(self._kafka, "the spool's publisher")
        self._ends = partial(feed.ends, self._kafka, USAGE_EVENTS)
        self._requests_writer = Writer(self._kafka, "the publisher of requests")
        self._publisher = self._proxy.publisher(self._writer, self._ends, loaded.kafka_partitions)
        self._requests = RequestPublisher(self._proxy.requests.take, self._publisher.marks, self._requests_writer)
        days, lanes = self._proxy.days, range(loaded.kafka_partitions)
        self._teller = InFlightTeller(self._writer, days, self._proxy.spool.instance, self._clock, lanes=lanes)
        self._others = InFlightFeed(self._kafka, days)

    def checks(self) -> Mapping[str, Check]:
        """Ask the spool, and whether configuration and decisions have been read to their ends."""
        return {
            "spool": lambda: self._proxy.spool.blocked,
            "configuration": lambda: None if self._config.is_caught_up else "not read to its end yet",
            "decisions": lambda: None if self._decisions.is_caught_up else "not read to their end yet",
        }

    async def start(self, spawn: Spawn) -> None:
        """Put back what an earlier process left, then hear what there is; until then no call may come."""
        await self._recover()
        for name, work in self._proxy.background().items():
            spawn(name, work())
        await base.topics_are_there(self._kafka, self._settings)
        await base.outage_of_kafka().ride_out(lambda: self._proxy.place_published(self._ends))
        spawn("the configuration", self._config.run())
        spawn("the decisions", self._decisions.run())
        spawn("the publisher", self._publisher.run())
        spawn("the publisher of requests", self._requests.run())
        spawn("what others have in flight", self._others.run())
        spawn("what is in flight near limits", self._teller.run())
        await base.heard(self._config, self._kafka)
        await self._decisions.caught_up()
        await self._hear_version_before(spawn)

    def public(self, checks: Mapping[str, Check]) -> Litestar | None:
        """Return the inference API."""
        handlers = [*self._proxy.handlers(), *health.health_handlers(checks)]
        walls = [self._proxy.host_wall()]
        return Litestar(route_handlers=handlers, openapi_config=None, middleware=walls, logging_config=None)

    def routes(self) -> Routes:
        """Return the calls that are counted."""
        return self._proxy.routes()

    def ops(self) -> Sequence[BaseRouteHandler]:
        """Return the spool's report, which `tollgate reconcile` reads."""
        return spool_report.handlers(self._publisher)

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show the proxy, its publisher and what it hears of the configuration."""
        self._proxy.register_metrics(telemetry)
        self._publisher.register_metrics(telemetry)
        telemetry.counter(
            "tollgate_in_flight_told_total",
            "Counters near a limit told to the other proxies, with what is in flight here.",
            lambda: self._teller.told,
        )
        self._config.register_metrics(telemetry)

    def calls(self) -> Sequence[CallCounts]:
        """Ask the tally of requests."""
        return self._proxy.requests.tally.take()

    async def tell(self, status: ProcessStatus) -> None:
        """Write it to the topic."""
        await self._status.tell(status)

    async def drain(self) -> None:
        """Publish what the last requests have left."""
        await self._publisher.drain(PUBLISH_GRACE_S)

    async def close(self) -> None:
        """Close connections and files."""
        try:
            await self._status.close()
            await self._requests_writer.close()
            await self._writer.close()
        finally:  # it writes what the spool has not written yet
            await self._proxy.close()
            await base.close_traces(self._traces)

    def _apply(self, changes: Sequence[ConfigChange]) -> None:
        for change in changes:
            self._proxy.apply(change)

    def _take_decisions(self, told: Sequence[HeardDecision | Whole | Spread]) -> None:
        self._proxy.take_decisions(told)
        self._teller.hear(told)

    async def _hear_version_before(self, spawn: Spawn) -> None:
        """Hear metering of the version before, where it has ever told anything: proxies are upgraded first."""
        async with LogReader(self._kafka, LIMITS_DECISIONS_V1) as reader:
            is_there = await base.outage_of_kafka().ride_out(reader.exists)
        if is_there:
            spawn("the decisions of the version before", self._by_sequence.run())
            await self._by_sequence.caught_up()

    async def _recover(self) -> None:
        """Bill what was in flight. Whether the ledger has it already is for the ledger to tell: its keys are unique."""
        try:
            interrupted = await self._proxy.recover(_unknown)
        except SpoolUnavailableError as error:
            raise InstallationError(f"what was in flight when the last process died cannot be kept: {error}") from error
        if interrupted:
            log.warning("%d requests were in flight when the last process died; they are billed", len(interrupted))


class LeavingRole(ProxyRole):
    """A proxy without its public port: it ends the process once all that its directory holds is published."""

    async def start(self, spawn: Spawn) -> None:
        """Begin to publish, besides what every proxy does."""
        await super().start(spawn)
        spawn("the end of what was left", self._leave())

    def public(self, checks: Mapping[str, Check]) -> Litestar | None:
        """Return None: there is no public port."""

    async def _leave(self) -> None:
        await self._publisher.leave(_LEAVES_WITHIN_S)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()  # until that ends the process


async def _unknown(_key: str) -> bool:
    return False
