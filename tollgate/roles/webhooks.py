"""`tollgate serve webhooks`: turns what the proxies publish into deliveries, and brings each to an end (contract 5)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from metering.store.alerts import SqlAlerts
from metering.store.ledger_view import SqlLedgerView
from runtime.clock import SharedClock
from runtime.config.feed import ConfigFeed
from runtime.http.health import Check
from runtime.kafka.writer import Kafka
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from schemas.config import ConfigChange, ConfigKind
from schemas.monitoring.status import ProcessStatus
from tollgate import installation
from tollgate.installation import Installation
from tollgate.roles import base
from tollgate.roles.process import Role, Spawn
from tollgate.roles.status import StatusTopic
from webhooks import app as webhooks_app
from webhooks.topic.consumer import IntakeConsumer


def prepare(loaded: Settings, closing: ExitStack) -> Callable[[], Role]:
    """Open the database. Raise InstallationError where its schema is not current, or the master key another's."""
    place = closing.enter_context(installation.opened(loaded))
    installation.check_master_key(place)
    clock = base.database_clock(place.database)
    return lambda: WebhooksRole(place, clock)


class WebhooksRole(Role):
    """The role; any number of processes may have it, those beyond the topic's partitions only deliver."""

    title = name = "webhooks"

    def __init__(self, place: Installation, clock: SharedClock) -> None:
        self._settings = place.settings
        self._database = place.database
        self._clock = clock
        self._kafka = Kafka.of(place.settings)
        self._status = StatusTopic(self._kafka)
        self._traces = base.traces(self.name)
        self._dispatcher = webhooks_app.Dispatcher(
            *(place.database, place.vault, clock, place.settings),
            ledger=SqlLedgerView(),
            alerts=SqlAlerts(),
            present=clock.present,
            traces=self._traces,
        )
        self._config = ConfigFeed(self._kafka, self._apply, place.database, self._clock, kinds=(ConfigKind.WEBHOOK,))
        self._stream = IntakeConsumer(self._kafka, self._dispatcher.follow)

    def checks(self) -> Mapping[str, Check]:
        """Ask whether the receivers are known and intake has joined its group."""
        return {
            "configuration": lambda: None if self._config.is_caught_up else "not read to its end yet",
            "intake": lambda: self._stream.blocked,
        }

    async def start(self, spawn: Spawn) -> None:
        """Hear of the receivers, then take in and deliver."""
        spawn("the clock", base.keep_time(self._clock, self._database))
        await base.topics_are_there(self._kafka, self._settings)
        spawn("the configuration", self._config.run())
        await base.heard(self._config, self._kafka)
        spawn("webhook intake", self._stream.run())
        spawn("webhook dispatch", self._dispatcher.run())

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what is delivered, and what is heard of the configuration."""
        self._dispatcher.register_metrics(telemetry, lambda: self._stream.lag(self._dispatcher.committed))
        self._config.register_metrics(telemetry)

    async def tell(self, status: ProcessStatus) -> None:
        """Write it to the topic."""
        await self._status.tell(status)

    async def drain(self) -> None:
        """Let attempts under way end."""
        await self._dispatcher.drain(self._settings.webhook_attempt_timeout_s + 1)

    async def close(self) -> None:
        """Close the connections to receivers and to Kafka."""
        try:
            await self._status.close()
        finally:
            await self._dispatcher.close()
            await base.close_traces(self._traces)

    def _apply(self, changes: Sequence[ConfigChange]) -> None:
        for change in changes:
            self._dispatcher.apply(change)
