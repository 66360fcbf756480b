"""Rides out an outage of the database: tries again with bounded pauses, and says so once at each end.

Never rides out what stays wrong however often it is tried.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError

from runtime.database import TransactionTooLongError

FIRST_PAUSE_S = 0.1
MOST_PAUSE_S = 5.0

Result = TypeVar("Result")
Pause = Callable[[float], Awaitable[None]]


def is_transient(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed later: the database is away, busy, full or slow."""
    if isinstance(error, OperationalError):
        # SQLite calls a wrong statement operational too; that one stays wrong.
        return getattr(error.orig, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR
    return isinstance(error, TransactionTooLongError | InterfaceError)


class Outage:
    """The outages of one task; `what` names the task in the log."""

    def __init__(self, what: str, log: logging.Logger, pause: Pause = asyncio.sleep) -> None:
        self._what = what
        self._log = log
        self._pause = pause
        self._pause_s = 0.0

    async def ride_out(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Run `work` until the database lets it pass. Raises what does not pass by itself."""
        while True:
            try:
                result = await work()
            except Exception as error:
                if not is_transient(error):
                    raise
                await self._rest(error)
            else:
                self.passed()
                return result

    def passed(self) -> None:
        """Note a success, for work that goes on after it."""
        if self._pause_s:
            self._pause_s = 0.0
            self._log.info("%s goes on: the database is back", self._what)

    async def _rest(self, error: Exception) -> None:
        if not self._pause_s:
            self._log.warning("%s waits for the database: %s", self._what, getattr(error, "orig", None) or error)
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), MOST_PAUSE_S)
        await self._pause(self._pause_s)
