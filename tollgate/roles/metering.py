"""`tollgate serve metering`: counts what the proxies publish, and tells them and finance the totals (counting 4, 5).

Never keeps a number of its own: what is counted is in the database, and a worker that is lost loses nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from functools import partial

from litestar.handlers import BaseRouteHandler

from metering.store import day_partitions
from metering.thresholds import GroupThresholds
from metering.topic.worker import MeteringWorker
from runtime import loops
from runtime.clock import SharedClock
from runtime.config.feed import ConfigFeed
from runtime.database.engines import Database
from runtime.http.exchange import Routes
from runtime.http.health import Check
from runtime.kafka.writer import Kafka, Writer
from runtime.outage import Outage, is_transient
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from schemas.config import ConfigChange, ConfigKind
from tollgate import installation
from tollgate.roles import base
from tollgate.roles.process import Role, Spawn

_TIDY_EVERY_S = 3600.0

log = logging.getLogger(__name__)


def prepare(loaded: Settings, closing: ExitStack) -> Callable[[], Role]:
    """Open the database. Raise WorkplaceError where its schema is not current."""
    database = installation.current_database(loaded, closing)
    clock = base.database_clock(database)
    return lambda: MeteringRole(loaded, database, clock)


class MeteringRole:
    """The role; as many processes may have it as the topic has partitions."""

    title = "metering"

    def __init__(self, loaded: Settings, database: Database, clock: SharedClock) -> None:
        self._settings = loaded
        self._database = database
        self._clock = clock
        self._kafka = Kafka.of(loaded)
        self._writer = Writer(self._kafka, "metering")
        self._thresholds = GroupThresholds()
        self._config = ConfigFeed(self._kafka, self._apply, database, self._clock, kinds=(ConfigKind.GROUP,))
        self._stream = MeteringWorker(self._kafka, database, self._thresholds, self._clock, self._writer)

    def is_new(self) -> bool:
        """Leave that to control."""
        return False

    def checks(self) -> Mapping[str, Check]:
        """Ask whether the groups' thresholds are known."""
        return {"configuration": lambda: None if self._config.is_caught_up else "not read to its end yet"}

    async def start(self, spawn: Spawn) -> None:
        """Hear of the groups' thresholds, then count."""
        spawn("the clock", base.keep_time(self._clock, self._database, self._stream.settle_clock))
        await base.topics_are_there(self._kafka, self._settings)
        spawn("the configuration", self._config.run())
        await base.heard(self._config, self._kafka)
        spawn("metering", self._stream.run())
        spawn("the ledger's days", self._tidy())

    def public(self, checks: Mapping[str, Check]) -> None:
        """Return nothing: nobody calls metering."""

    def routes(self) -> Routes:
        """Return none."""
        return {}

    def ops(self) -> Sequence[BaseRouteHandler]:
        """Return nothing more."""
        return ()

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what is counted, and what is heard of the configuration."""
        self._stream.register_metrics(telemetry)
        self._config.register_metrics(telemetry)

    async def drain(self) -> None:
        """Bring the batch under way to its end."""
        await self._stream.stop()

    async def close(self) -> None:
        """Close connections."""
        await self._writer.close()

    def _apply(self, changes: Sequence[ConfigChange]) -> None:
        for change in changes:
            self._thresholds.apply(change)

    async def _tidy(self) -> None:
        """Make the ledger's next days and drop those that are over; every worker does, the database lets one."""
        outage = Outage("the ledger's days", log)
        while True:
            loops.turned()
            today = self._clock().date()
            await outage.ride_out(lambda today=today: self._database.write(partial(day_partitions.ensure, today=today)))  # type: ignore[misc]
            await self._drop(today)
            loops.turned(0, rest_s=_TIDY_EVERY_S)
            await asyncio.sleep(_TIDY_EVERY_S)

    async def _drop(self, today: date) -> None:
        """Drop what is over; an hour later where that does not go, since each try holds the writers up.

        A long reader may be in the way, or what only an operator can mend: a view on a day, a right that is missing.
        The days stay then, and the counting goes on.
        """
        try:
            await self._database.write(
                partial(day_partitions.drop_expired, today=today, keep_days=self._settings.ledger_days)
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong with old days, new ones are to be counted
            level = logging.INFO if is_transient(error) else logging.ERROR
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            log.log(level, "the days that are over are dropped later: %s", reason)
