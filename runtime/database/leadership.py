"""One at a time: a lock that PostgreSQL holds for as long as a connection lives (counting 8).

Never says that it leads without having asked the database on that very connection; losing it loses the lock.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Protocol, TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from runtime.database import locks
from runtime.database.engines import Database

ASK_S = 5.0
"""How long the database may take to answer."""

# The server's own: it must notice within seconds that a machine is gone, and let another have the lock.
_KEEPALIVES = {"tcp_keepalives_idle": "4", "tcp_keepalives_interval": "2", "tcp_keepalives_count": "3"}

Result = TypeVar("Result")


class LeadershipLostError(Exception):
    """It is not sure any more that no other process leads."""


class Leadership(Protocol):
    """The right to be the only one who does something."""

    async def take(self) -> bool:
        """Try to get it; say whether it is held. Raise LeadershipLostError and what a database raises."""

    async def check(self) -> None:
        """Return when it is sure that it was held a moment ago. Raise LeadershipLostError."""

    async def release(self) -> None:
        """Let another have it."""


class PostgresLeadership:
    """A session's advisory lock `name`. It needs a connection that no pooler gives to others."""

    def __init__(
        self, database: Database, name: str, *, ask_s: float = ASK_S, steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._name = name
        self._ask_s = ask_s
        self._steady = steady
        self._session: _Session | None = None

    async def take(self) -> bool:
        """Try to get it."""
        self._session = self._session or _Session(self._database, self._name)
        return await self._asked(self._session.take)

    async def check(self) -> None:
        """Ask on the lock's connection, again where the answer came so late that this process may have been stopped."""
        if self._session is None:
            raise LeadershipLostError("the lock was never held")
        while True:
            asked_at = self._steady()
            try:
                await self._asked(self._session.ask)
            except DBAPIError as error:
                raise LeadershipLostError(f"the connection that holds the lock is lost: {error.orig}") from error
            if self._steady() - asked_at < self._ask_s:
                return

    async def release(self) -> None:
        """Close the connection, and with it end the lock."""
        session, self._session = self._session, None
        if session is not None:
            closing = asyncio.get_running_loop().run_in_executor(session.thread, session.close)
            session.thread.shutdown(wait=False)
            await asyncio.wait({closing}, timeout=self._ask_s)

    async def _asked(self, work: Callable[[], Result]) -> Result:
        session = self._session
        assert session is not None  # noqa: S101 - the callers have looked
        try:
            async with asyncio.timeout(self._ask_s):
                return await asyncio.get_running_loop().run_in_executor(session.thread, work)
        except TimeoutError:
            raise LeadershipLostError(f"the database did not answer within {self._ask_s:g} s") from None


class _Session:
    """A connection outside the pool, and its own thread: what hangs on a server that is gone hangs there alone."""

    def __init__(self, database: Database, name: str) -> None:
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="leader")
        self._database = database
        self._name = name
        self._connection: Connection | None = None

    def take(self) -> bool:
        if self._connection is None:
            connection = self._database.session_engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()  # back in the pool it would go on holding the lock
            self._connection = connection
            for name, value in _KEEPALIVES.items():
                connection.execute(select(func.set_config(name, value, False)))  # noqa: FBT003 - PostgreSQL's own
        lock = func.pg_try_advisory_lock(locks.number(self._name))
        return bool(self._connection.scalar(select(lock)))

    def ask(self) -> None:
        if self._connection is None:
            raise LeadershipLostError("the lock was never held")
        self._connection.execute(select(1))

    def close(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):  # it may be lost
                self._connection.execute(select(func.pg_advisory_unlock_all()))  # the end is seen a little later
            with suppress(SQLAlchemyError):
                self._connection.close()
