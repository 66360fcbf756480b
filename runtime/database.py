"""The relational database: engines, transactions in threads, and the column types all tables share.

Never holds a query of a table: each table's SQL lives in one module of the package that owns it.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, DateTime, Dialect, Engine, MetaData, TypeDecorator, create_engine, event
from sqlalchemy.pool import QueuePool

Result = TypeVar("Result")

METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Every table of the product registers here, so that the migrations can be checked against the code."""

TRANSACTION_BOUND_S = 30
"""A transaction older than this is rolled back, never committed: readers that hold back newer rows rely on it."""

_BUSY_TIMEOUT_S = 20
_READERS = 4


class TransactionTooLongError(Exception):
    """A transaction took longer than TRANSACTION_BOUND_S and was rolled back."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time. SQLite keeps no zone, so it is stored there as UTC and given back as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime must not reach the database")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Give the zone back."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Database:
    """Runs functions of a connection as one transaction each, off the event loop.

    Writers queue up for one thread (SQLite has one writer anyway), readers share a few. A cancelled caller does not
    cancel its transaction: what it wrote may be committed all the same.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="db-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="db-read")

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction; commits when it returns, rolls back when it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, self.write_now, work)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` on one consistent view; it must not write."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, work)

    def write_now(self, work: Callable[[Connection], Result]) -> Result:
        """`write` for callers without an event loop."""
        started = time.monotonic()
        with self.engine.connect().execution_options(tollgate_write=True) as connection, connection.begin():
            result = work(connection)
            if time.monotonic() - started > TRANSACTION_BOUND_S:
                raise TransactionTooLongError(f"rolled back after {TRANSACTION_BOUND_S} s")
            return result

    def read_now(self, work: Callable[[Connection], Result]) -> Result:
        """`read` for callers without an event loop."""
        with self.engine.connect() as connection, connection.begin():
            return work(connection)

    def close(self) -> None:
        """Wait for transactions under way, then close every connection."""
        self._writer.shutdown()
        self._readers.shutdown()
        self.engine.dispose()


def open_sqlite(path: Path) -> Database:
    """Open the embedded default's database: WAL, every commit on disk before it returns (design 3.1)."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=_READERS + 1,
        connect_args={"timeout": _BUSY_TIMEOUT_S, "check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Database(engine)


@contextmanager
def sqlite(path: Path) -> Iterator[Database]:
    """`open_sqlite` for the length of a `with` block."""
    database = open_sqlite(path)
    try:
        yield database
    finally:
        database.close()


def _prepare_sqlite(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.isolation_level = None  # we say BEGIN ourselves; the driver's own guess comes too late
    cursor = dbapi_connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a reader that turns writer mid-way gets "database is locked" at once, without the busy timeout.
    write = connection.get_execution_options().get("tollgate_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
