"""Hands configuration changes to those who hold a snapshot, in order of their versions (counting 8, embedded).

Never drops a change that can be read: in an outage it is read again, and a subscriber that fails ends the relay. A row
that no version could read is skipped, counted and logged, and keeps no later one from being in force.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from runtime import loops
from runtime.config import log as config_log
from runtime.config.log import ChangesRead
from runtime.config.rounds import Rounds
from runtime.config.skipped import SkippedChanges
from runtime.database.engines import Database
from runtime.outage import Outage, Pause
from runtime.telemetry.metrics import Telemetry
from schemas.config import ConfigChange

POLL_S = 0.25
"""Changes by another process are seen this late at most."""

IN_FORCE_WITHIN_S = 5.0
"""A change is answered then even where it could not be handed over."""

_BATCH = 1000

Subscriber = Callable[[ConfigChange], None]

_log = logging.getLogger(__name__)


class Relay:
    """Follows the log of configuration changes from `version` on (exclusive)."""

    def __init__(
        self, database: Database, version: int, subscribers: Sequence[Subscriber], pause: Pause = asyncio.sleep
    ) -> None:
        self.version = version
        self._database = database
        self._subscribers = tuple(subscribers)
        self._rounds = Rounds()
        self._skipped = SkippedChanges("the configuration's log")
        self._outage = Outage("the configuration's relay", _log, pause)

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what was skipped."""
        self._skipped.register_metrics(telemetry)

    def poke(self) -> None:
        """Look at once instead of at the next poll. Called on the event loop."""
        self._rounds.poke()

    async def in_force(self) -> None:
        """Return when all that is committed has been handed over; in an outage of the database after 5 s."""
        await self._rounds.whole(IN_FORCE_WITHIN_S)

    async def run(self) -> None:
        """Follow until cancelled. A subscriber's exception ends it; an outage of the database does not."""
        while True:
            await self._rounds.take(self.step)
            loops.turned(rest_s=POLL_S)
            await self._rounds.rest(POLL_S)

    async def step(self) -> None:
        """Hand over every change there is now."""
        while True:
            read = await self._outage.ride_out(self._read)
            if read.newest == self.version:
                return
            for change in read.changes:
                for subscriber in self._subscribers:
                    subscriber(change)
                self.version = change.version
            self.version = read.newest

    async def _read(self) -> ChangesRead:
        read = partial(config_log.read_since, version=self.version, skip=self._skipped.skip, limit=_BATCH)
        return await self._database.read(read)
