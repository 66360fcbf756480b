"""Hands configuration changes to those who hold a snapshot, in order of their versions (design 3.8, embedded).

Never drops a change: what cannot be read now is read again, and a subscriber that fails ends the relay.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from runtime import config_log
from runtime.database import Database
from schemas.config import ConfigChange

POLL_S = 0.25
"""Changes by another process are seen this late at most."""

MAX_PAUSE_S = 5.0
_BATCH = 1000

Subscriber = Callable[[ConfigChange], None]

_log = logging.getLogger(__name__)


def pause_s(failures: int) -> float:
    """Give how long to wait before the next read, after `failures` reads in a row that failed."""
    return min(POLL_S * 2.0 ** min(failures, 10), MAX_PAUSE_S)


class Relay:
    """Follows the log of configuration changes from `version` on (exclusive)."""

    def __init__(self, database: Database, version: int, subscribers: Sequence[Subscriber]) -> None:
        self.version = version
        self._database = database
        self._subscribers = tuple(subscribers)
        self._poked = asyncio.Event()
        self._failures = 0

    def poke(self) -> None:
        """Look at once instead of at the next poll. Called on the event loop."""
        self._poked.set()

    async def run(self) -> None:
        """Follow until cancelled. A subscriber's exception ends it; a database error does not."""
        while True:
            self._poked.clear()
            if await self.step():
                await self._rest()
            else:
                await asyncio.sleep(pause_s(self._failures))

    async def step(self) -> bool:
        """Hand over every change there is now; False where the database could not be read."""
        while (changes := await self._read()) is not None:
            for change in changes:
                for subscriber in self._subscribers:
                    subscriber(change)
                self.version = change.version
            if len(changes) < _BATCH:
                return True
        return False

    async def _read(self) -> Sequence[ConfigChange] | None:
        version = self.version
        try:
            changes = await self._database.read(lambda connection: config_log.read_since(connection, version, _BATCH))
        except SQLAlchemyError as error:
            if not self._failures:
                _log.error("configuration changes cannot be read, trying again: %s", type(error).__name__)
            self._failures += 1
            return None
        if self._failures:
            _log.info("configuration changes can be read again after %d failures", self._failures)
            self._failures = 0
        return changes

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                await self._poked.wait()
        except TimeoutError:
            return
