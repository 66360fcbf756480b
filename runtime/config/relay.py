"""Hands configuration changes to those who hold a snapshot, in order of their versions (counting 8, embedded).

Never drops a change: what cannot be read now is read again, and a subscriber that fails ends the relay.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from runtime import loops
from runtime.config import log as config_log
from runtime.database.engines import Database
from runtime.outage import Outage, Pause
from schemas.config import ConfigChange

POLL_S = 0.25
"""Changes by another process are seen this late at most."""

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
        self._poked = asyncio.Event()
        self._outage = Outage("the configuration's relay", _log, pause)

    def poke(self) -> None:
        """Look at once instead of at the next poll. Called on the event loop."""
        self._poked.set()

    async def run(self) -> None:
        """Follow until cancelled. A subscriber's exception ends it; an outage of the database does not."""
        while True:
            self._poked.clear()
            await self.step()
            loops.turned(rest_s=POLL_S)
            await self._rest()

    async def step(self) -> None:
        """Hand over every change there is now."""
        while True:
            changes = await self._outage.ride_out(self._read)
            for change in changes:
                for subscriber in self._subscribers:
                    subscriber(change)
                self.version = change.version
            if len(changes) < _BATCH:
                return

    async def _read(self) -> Sequence[ConfigChange]:
        version = self.version
        return await self._database.read(lambda connection: config_log.read_since(connection, version, _BATCH))

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._poked.wait()
        except TimeoutError:
            return
