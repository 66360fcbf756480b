"""Rides out an outage of the database or of Kafka: tries again with bounded pauses, and says so once at each end.

Never rides out what stays wrong however often it is tried.
"""

import asyncio
import logging
import re
import sqlite3
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from runtime import loops
from runtime.database import replicas
from runtime.database.engines import TransactionTooLongError

FIRST_PAUSE_S = 0.1
MOST_PAUSE_S = 5.0

# PostgreSQL's: connection lost; rolled back (serialization, deadlock); out of resources; ended by the operator or by a
# bound (shutdown, start-up, a statement cancelled); a system error of its machine.
_PASSING_CLASSES = {"08", "40", "53", "57", "58"}
_PASSING_STATES = {"25P03", "25P04", "55P03"}  # idle in a transaction, transaction too long, lock not available

_LOGIN_REFUSED = re.compile(
    'authentication failed|no password supplied|no pg_hba.conf entry|role ".*" (?:does not exist|is not permitted)'
)

Result = TypeVar("Result")
Pause = Callable[[float], Awaitable[None]]


def is_transient(error: BaseException) -> bool:
    """Tell whether the same transaction may succeed later: the database is away, busy, full, slow or gave it up."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, TransactionTooLongError | PoolTimeoutError)
    state: str | None = getattr(error.orig, "sqlstate", None)
    if replicas.refuses(error.orig):  # a replica's, where there was a primary: the next connection may find the new one
        return error.connection_invalidated
    if state is not None:
        return state in _PASSING_STATES or state[:2] in _PASSING_CLASSES
    # SQLite calls a wrong statement operational too; that one stays wrong. PostgreSQL tells no state where it is away.
    is_wrong = getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR
    return isinstance(error, InterfaceError | OperationalError) and not is_wrong


def refuses_login(error: BaseException) -> bool:
    """Tell whether PostgreSQL let nobody of that name, or with that password, in: at a start that stays wrong.

    The driver tells no state of it, so it is read from the words, which are English unless the server says otherwise.
    """
    servers = str(getattr(error, "orig", None) or "").split("connection to server at ")[1:]
    return bool(servers) and all(_LOGIN_REFUSED.search(server) is not None for server in servers)


def is_of_disk(error: BaseException) -> bool:
    """Tell whether a file could not be read or written: its disk may be full or away, and the same work pass later."""
    return isinstance(error, sqlite3.Error | OSError)


class Outage:
    """The outages of one task; `what` names the task in the log, `of` what it waits for.

    `passes` tells whether an error may pass by itself.
    """

    def __init__(
        self,
        what: str,
        log: logging.Logger,
        pause: Pause = asyncio.sleep,
        *,
        of: str = "the database",
        passes: Callable[[BaseException], bool] = is_transient,
    ) -> None:
        self._what = what
        self._of = of
        self._passes = passes
        self._log = log
        self._pause = pause
        self._pause_s = 0.0

    async def ride_out(self, work: Callable[[], Awaitable[Result]]) -> Result:
        """Run `work` until it passes. Raises what does not pass by itself."""
        while True:
            try:
                result = await work()
            except Exception as error:
                if not self._passes(error):
                    raise
                await self._rest(error)
            else:
                self.passed()
                return result

    async def repeat(self, every_s: float, work: Callable[[], Awaitable[object]], *, did: int = 0) -> NoReturn:
        """Rest, then run `work` until it passes, for ever. Raises what does not pass by itself.

        `did` is what each turn counts as in the loop's metric, where `work` itself does not say what it did.
        """
        while True:
            loops.turned(did, rest_s=every_s)
            await self._pause(every_s)
            await self.ride_out(work)

    def passed(self) -> None:
        """Note a success, for work that goes on after it."""
        if self._pause_s:
            self._pause_s = 0.0
            self._log.info("%s goes on: %s is back", self._what, self._of)

    async def _rest(self, error: Exception) -> None:
        if not self._pause_s:
            cause = " ".join(str(getattr(error, "orig", None) or error).split())
            self._log.warning("%s waits for %s: %s", self._what, self._of, cause)
        loops.turned(0, rest_s=MOST_PAUSE_S, waits_for=self._of)
        self._pause_s = min(max(2 * self._pause_s, FIRST_PAUSE_S), MOST_PAUSE_S)
        await self._pause(self._pause_s)
