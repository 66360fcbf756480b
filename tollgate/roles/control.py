"""`tollgate serve control`: the management API, and the relay of its changes to Kafka (design 3.8).

Never answers a developer's call: that is a proxy's.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from litestar import Litestar
from litestar.handlers import BaseRouteHandler

from control import app as control_app
from control.broadcast import Broadcast
from control.leader import PostgresLeadership
from control.store.workspaces import Workspaces
from runtime import feed, version
from runtime.clock import SharedClock
from runtime.http import health
from runtime.http.exchange import Routes
from runtime.http.health import Check
from runtime.kafka import Kafka, Writer
from runtime.settings import Settings
from runtime.telemetry import Telemetry
from schemas.topics import GATEWAY_CONFIG
from tollgate import workplace
from tollgate.process import Role, Spawn
from tollgate.roles import common
from tollgate.workplace import Workplace, WorkplaceError


def prepare(loaded: Settings, closing: ExitStack) -> Callable[[], Role]:
    """Open the database. Raises WorkplaceError where its schema is not current, or the master key another's."""
    place = closing.enter_context(workplace.opened(loaded))
    workplace.check_master_key(place)
    clock = common.database_clock(place.database)  # what it puts back, its dispatchers look at by theirs
    return lambda: Control(place, clock)


class Control:
    """The role; any number of processes may have it, and one of them at a time relays."""

    title = "the management API"

    def __init__(self, place: Workplace, clock: SharedClock) -> None:
        self._place = place
        self._clock = clock
        self._kafka = Kafka.of(place.settings)
        self._broadcast = Broadcast(
            place.database,
            Writer(self._kafka, "the relay"),
            PostgresLeadership(place.database, "relay"),
            self._end_of_config,
            self._clock,
        )

    def is_new(self) -> bool:
        """Ask the database; no where it is away, for a hint is no reason to end."""
        try:
            return not self._place.read(lambda connection: Workspaces(connection).every())
        except WorkplaceError:
            return False

    def checks(self) -> Mapping[str, Check]:
        """Nothing beside the start itself, which has seen the schema and the topics."""
        return {}

    async def start(self, spawn: Spawn) -> None:
        """Begin to relay. The API answers also while Kafka is away."""
        spawn(common.keep_time(self._clock, self._place.database))
        spawn(self._relay())

    def public(self, checks: Mapping[str, Check]) -> Litestar:
        """Give the management API."""
        place = self._place
        management = control_app.build(place.database, place.vault, self._clock, place.settings, self._broadcast.poke)
        return Litestar(
            route_handlers=[management, *health.health_handlers(checks)],
            openapi_config=control_app.openapi_config(version.current()),
            exception_handlers=control_app.UNROUTED,
            logging_config=None,
        )

    def routes(self) -> Routes:
        """Return none."""
        return {}

    def ops(self) -> Sequence[BaseRouteHandler]:
        """Give nothing more."""
        return ()

    def show(self, telemetry: Telemetry) -> None:
        """Show how the relay does."""
        self._broadcast.show(telemetry)

    async def drain(self) -> None:
        """Leave what is not relayed to the next process: it is in the database."""

    async def close(self) -> None:
        """Let go of nothing: the relay has closed its own."""

    async def _end_of_config(self) -> int:
        return sum((await feed.ends(self._kafka, GATEWAY_CONFIG)).values())

    async def _relay(self) -> None:
        await common.topics_are_there(self._kafka, self._place.settings)
        await self._broadcast.run()
