"""`tollgate serve metering`: counts what the proxies publish, and tells them and finance the totals (counting 4, 5)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from metering.retention import LedgerRetention
from metering.store.transaction import SqlLedger
from metering.thresholds import GroupThresholds
from metering.topic.worker import MeteringWorker
from metering.upkeep import LedgerUpkeep
from runtime.clock import SharedClock
from runtime.config.feed import ConfigFeed
from runtime.database import engines as databases
from runtime.database.engines import Database
from runtime.http.health import Check
from runtime.kafka.writer import Kafka, Writer
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from schemas.config import ConfigChange, ConfigKind
from schemas.monitoring.status import ProcessStatus
from tollgate import installation
from tollgate.roles import base
from tollgate.roles.process import Role, Spawn
from tollgate.roles.status import StatusTopic


def prepare(loaded: Settings, closing: ExitStack) -> Callable[[], Role]:
    """Open the database. Raise InstallationError where its schema is not current."""
    database = installation.current_database(loaded, closing)
    clock = base.database_clock(database)
    return lambda: MeteringRole(loaded, database, clock)


class MeteringRole(Role):
    """The role; as many processes may have it as the topic has partitions."""

    title = name = "metering"

    def __init__(self, loaded: Settings, database: Database, clock: SharedClock) -> None:
        self._settings = loaded
        self._database = database
        self._clock = clock
        self._kafka = Kafka.of(loaded)
        self._writer = Writer(self._kafka, "metering")
        self._status = StatusTopic(self._kafka)
        self._traces = base.traces(self.name)
        self._thresholds = GroupThresholds()
        kinds = (ConfigKind.GROUP, ConfigKind.WEBHOOK)  # the latter say who asked for alerts
        self._config = ConfigFeed(self._kafka, self._apply, database, self._clock, kinds=kinds)
        self._stream = MeteringWorker(
            self._kafka, database, self._thresholds, self._clock, self._writer, traces=self._traces
        )

    def checks(self) -> Mapping[str, Check]:
        """Ask whether the groups' thresholds are known."""
        return {"configuration": lambda: None if self._config.is_caught_up else "not read to its end yet"}

    async def start(self, spawn: Spawn) -> None:
        """Hear of the groups' thresholds, then count."""
        ledger = SqlLedger(self._database, partial(databases.now, clock=self._clock))
        spawn("the clock", base.keep_time(self._clock, self._database, ledger.note_clock_set_back))
        await base.topics_are_there(self._kafka, self._settings)
        spawn("the configuration", self._config.run())
        await base.heard(self._config, self._kafka)
        spawn("metering", self._stream.run())
        days = LedgerUpkeep(self._database, self._clock, keep_days=self._settings.ledger_days)
        spawn("the ledger's days", days.run())
        kept = LedgerRetention(self._database, self._clock, ledger_days=self._settings.ledger_days)
        spawn("metering's retention", kept.run())

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what is counted, and what is heard of the configuration."""
        self._stream.register_metrics(telemetry)
        self._config.register_metrics(telemetry)

    async def tell(self, status: ProcessStatus) -> None:
        """Write it to the topic."""
        await self._status.tell(status)

    async def drain(self) -> None:
        """Bring the batch under way to its end."""
        await self._stream.stop()

    async def close(self) -> None:
        """Close connections."""
        await self._status.close()
        await self._writer.close()
        await base.close_traces(self._traces)

    def _apply(self, changes: Sequence[ConfigChange]) -> None:
        for change in changes:
            self._thresholds.apply(change)
