"""`tollgate serve control`: the management API, and the relay of its changes to Kafka (counting 8)."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from litestar import Litestar

from control import app as control_app
from control.reconciliations import Reconciliations
from control.retention import Retention
from control.store.workspaces import SqlWorkspaces
from control.topic import requests, status
from control.topic.follower import TopicFollower
from control.topic.publisher import ConfigPublisher
from runtime import version
from runtime.clock import SharedClock
from runtime.database.engines import Database
from runtime.database.leadership import PostgresLeadership
from runtime.http import health
from runtime.http.health import Check
from runtime.kafka import feed
from runtime.kafka.writer import Kafka, Writer
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from schemas.monitoring.status import ProcessStatus
from schemas.topics import GATEWAY_CONFIG
from tollgate import installation
from tollgate.installation import Installation, InstallationError
from tollgate.reconciliation.runs import BackgroundReconcile
from tollgate.roles import base
from tollgate.roles.process import Role, Spawn
from tollgate.roles.status import StatusTopic

RELAY = "relay"
"""Names the lock of the one process that relays."""


def prepare(loaded: Settings, closing: ExitStack) -> Callable[[], Role]:
    """Open the database. Raise InstallationError where its schema is not current, or the master key another's."""
    place = closing.enter_context(installation.opened(loaded))
    installation.check_master_key(place)
    clock = base.database_clock(place.database)  # what it puts back, its dispatchers look at by theirs
    return lambda: Control(place, clock)


class Control(Role):
    """The role; any number of processes may have it, and one of them at a time relays."""

    title = "the management API"
    name = "control"

    def __init__(self, place: Installation, clock: SharedClock) -> None:
        self._place = place
        self._clock = clock
        self._kafka = Kafka.of(place.settings)
        self._status = StatusTopic(self._kafka)
        self._publisher = ConfigPublisher(
            place.database,
            Writer(self._kafka, "the relay"),
            PostgresLeadership(place.database, RELAY),
            self._end_of_config,
            self._clock,
        )
        self._reconciliations = Reconciliations(place.database, clock, BackgroundReconcile(place, clock))

    def is_new(self) -> bool:
        """Ask the database; no where it is away, for a hint is no reason to end."""
        try:
            return not self._place.read(lambda connection: SqlWorkspaces(connection).every())
        except InstallationError:
            return False

    def checks(self) -> Mapping[str, Check]:
        """Nothing beside the start itself, which has seen the schema and the topics."""
        return {}

    async def start(self, spawn: Spawn) -> None:
        """Begin to relay. The API answers also while Kafka is away."""
        spawn("the clock", base.keep_time(self._clock, self._place.database))
        spawn("the relay to Kafka", self._relay())
        settings = self._place.settings
        kept = Retention(
            self._place.database, self._clock, audit_days=settings.audit_days, ledger_days=settings.ledger_days
        )
        spawn("control's retention", kept.run())
        spawn("the console's reconciliation", self._reconciliations.run())
        spawn("the requests that did not go well", self._follow(requests.follower(*self._of_topics())))
        spawn("the status of all processes", self._follow(status.follower(*self._of_topics())))

    def public(self, checks: Mapping[str, Check]) -> Litestar:
        """Return the management API."""
        place = self._place
        management = control_app.handlers(
            control_app.desk(
                *(place.database, place.vault, self._clock, place.settings, self._publisher.in_force),
                reconciliations=self._reconciliations,
            )
        )
        return Litestar(
            route_handlers=[*management, *health.health_handlers(checks)],
            openapi_config=control_app.openapi_config(version.current()),
            exception_handlers=control_app.UNROUTED,
            middleware=[control_app.host_wall(place.database, place.settings)],
            logging_config=None,
        )

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show how the relay does."""
        self._publisher.register_metrics(telemetry)

    async def tell(self, status: ProcessStatus) -> None:
        """Write it to the topic."""
        await self._status.tell(status)

    async def close(self) -> None:
        """Close the connections of the status."""
        await self._status.close()

    async def _end_of_config(self) -> int:
        return sum((await feed.ends(self._kafka, GATEWAY_CONFIG)).values())

    def _of_topics(self) -> tuple[Kafka, Database]:
        return self._kafka, self._place.database

    async def _follow(self, follower: TopicFollower[Any]) -> None:
        await base.topics_are_there(self._kafka, self._place.settings)
        await follower.run()

    async def _relay(self) -> None:
        await base.topics_are_there(self._kafka, self._place.settings)
        await self._publisher.run()
