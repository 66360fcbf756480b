"""What the roles that run apart share: an installation's services, and the topics they need before they begin."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from runtime.clock import SharedClock, steady
from runtime.database import engines as databases
from runtime.database.engines import Database
from runtime.kafka import outages, topics
from runtime.kafka.writer import Kafka
from runtime.outage import Outage
from runtime.settings import Settings, SettingsError
from runtime.telemetry.traces import Traces
from runtime.telemetry.traces import opened as opened_traces
from schemas.topics import GATEWAY_CONFIG
from tollgate.installation import InstallationError, failed

_SAID_AFTER_S = 10.0
_SET_EVERY_S = 10.0
"""Well below a lease's margin: a machine that was suspended is right again before its leases mislead others."""

log = logging.getLogger(__name__)


class Follows(Protocol):
    """What hears of something from its beginning."""

    async def caught_up(self) -> None:
        """Return when it has heard all there was."""


def database_clock(database: Database) -> SharedClock:
    """Return the database's time, for what its processes compare with each other's: leases, what changed lately.

    Raise InstallationError where the database does not answer.
    """
    try:
        return SharedClock(database.read_now(_now))
    except SQLAlchemyError as error:
        raise failed("TOLLGATE_DATABASE_URL", error) from None


async def keep_time(clock: SharedClock, database: Database, also: Callable[[], Awaitable[None]] | None = None) -> None:
    """Set the clock anew every 10 s, for as long as the process runs, and do `also`, which may fail as one does."""

    async def set_anew() -> None:
        clock.set(await database.read(_now))
        if also is not None:
            await also()

    await Outage("the clock", log).repeat(_SET_EVERY_S, set_anew, did=1)


def traces(role: str) -> Traces | None:
    """Return what makes the spans of a process; None: the environment names no collector. Raise InstallationError."""
    try:
        return opened_traces(role)
    except SettingsError as error:
        raise InstallationError(str(error)) from None


async def close_traces(made: Traces | None) -> None:
    """Send the spans that are left, if any are made."""
    if made is not None:
        await made.close()


def _now(connection: Connection) -> datetime:
    return databases.now(connection, steady())


def outage_of_kafka() -> Outage:
    """Return what waits for Kafka at a start."""
    return outages.outage("the start", log)


async def topics_are_there(where: Kafka, loaded: Settings) -> None:
    """Create the topics that are missing, and wait while Kafka is away. Raise InstallationError at a mismatch."""
    problems = await outage_of_kafka().ride_out(lambda: topics.ensure(where, topics.plans(loaded), create=True))
    if problems:
        raise InstallationError(topics.told(problems))


async def heard(feed: Follows, where: Kafka) -> None:
    """Wait until the configuration is known, however long that takes; say once what that may need."""
    try:
        async with asyncio.timeout(_SAID_AFTER_S):
            await feed.caught_up()
    except TimeoutError:
        log.warning(
            "still waiting for the configuration in %s: does `tollgate serve control` run with this Kafka and prefix?",
            where.name(GATEWAY_CONFIG),
        )
        await feed.caught_up()
