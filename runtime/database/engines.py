"""The relational database: engines, transactions in threads, and the column types all tables share."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import (
    Connection,
    DateTime,
    Dialect,
    Engine,
    MetaData,
    TypeDecorator,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.pool import QueuePool

from runtime.database import locks, readers, replicas
from runtime.database.readers import ReaderKind, ReadThreads

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
_WRITERS = 4

# PostgreSQL 15 ends no transaction for its age, so the bound is made of three: ours, the pause, and the COMMIT itself.
_STATEMENT_BOUND_S = 10
_IDLE_BOUND_S = 5
_READ_BOUND_S = 600  # reports read for minutes; a reader that hangs must still not hold back the vacuum for ever
_RECYCLE_S = 3600
_PREPARE_THRESHOLD = 5  # psycopg's own
_REPEATABLE_READ = 3  # the number of it in psycopg.IsolationLevel
_TCP = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds: how long what we sent may stay unacknowledged
}


class TransactionTooLongError(Exception):
    """A transaction took longer than TRANSACTION_BOUND_S and was rolled back."""


class DatabaseUrlError(Exception):
    """The URL of the database cannot be read; the message holds nothing of it."""


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
        """Put the zone back."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Database:
    """Runs functions of a connection as one transaction each, off the event loop.

    Writers queue up for `writers` threads (SQLite has one writer anyway), each kind of reader for its own. A cancelled
    caller does not cancel its transaction: what it wrote may be committed all the same. `reader` is for engines whose
    reading connections are set up in another way, `session` for those whose connections a pooler gives to another
    client after each transaction; `commit_within_s` is how old a transaction may be when it asks to commit.
    """

    def __init__(
        self,
        engine: Engine,
        reader: Engine | None = None,
        session: Engine | None = None,
        *,
        writers: int = 1,
        commit_within_s: float = TRANSACTION_BOUND_S,
    ) -> None:
        self.engine = engine
        self.session_engine = session or engine
        """Its connections are their client's alone, as long as they live."""
        self._reader = reader or engine
        self._commit_within_s = commit_within_s
        self._write_threads = ThreadPoolExecutor(writers, thread_name_prefix="db-write")
        self._read_threads = ReadThreads()

    @property
    def engines(self) -> Sequence[Engine]:
        """What writes, and what reads or keeps a session where that is another."""
        return tuple(dict.fromkeys((self.engine, self._reader, self.session_engine)))

    async def write(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction; commits when it returns, rolls back when it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._write_threads, self.write_now, work)

    async def read(self, work: Callable[[Connection], Result], reader: ReaderKind = ReaderKind.WORK) -> Result:
        """Run `work` on one consistent view, in a thread of that kind of reader; it must not write."""
        return await asyncio.get_running_loop().run_in_executor(self._read_threads.of(reader), self.read_now, work)

    def write_now(self, work: Callable[[Connection], Result]) -> Result:
        """`write` for callers without an event loop."""
        started = time.monotonic()
        with self._writing(self.engine) as connection:
            result = work(connection)
            if time.monotonic() - started > self._commit_within_s:
                raise TransactionTooLongError(f"rolled back after {self._commit_within_s} s")
            return result

    def change_schema(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` in a transaction without bounds, while no other process does the same."""
        with self._writing(self.session_engine) as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
            lock(connection, "schema")
            return work(connection)

    def read_now(self, work: Callable[[Connection], Result]) -> Result:
        """`read` for callers without an event loop."""
        with self._reader.connect() as connection, connection.begin():
            return work(connection)

    @contextmanager
    def _writing(self, engine: Engine) -> Iterator[Connection]:
        with engine.connect().execution_options(tollgate_write=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Wait for transactions under way, then close every connection."""
        self._write_threads.shutdown()
        self._read_threads.shutdown()
        for engine in self.engines:
            engine.dispose()


def lock(connection: Connection, name: str) -> None:
    """Wait until no other transaction holds the lock `name`, and hold it to the end of this one.

    Nothing to do on SQLite: the transaction of a writer is the lock.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(locks.number(name))))


def now(connection: Connection, clock: Callable[[], datetime]) -> datetime:
    """Return the moment on the one clock that all processes of a database share, taken when the transaction began.

    PostgreSQL's own, since the clocks of several machines differ; on SQLite, whose processes share a machine, `clock`.
    """
    if connection.dialect.name == "postgresql":
        moment: datetime = connection.execute(select(func.now())).scalar_one()
        return moment.astimezone(UTC)
    return clock()


def present(connection: Connection, clock: Callable[[], datetime]) -> datetime:
    """Return the present on the same clock as `now`, however long the transaction has waited since it began."""
    if connection.dialect.name == "postgresql":
        moment: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)
    return clock()


def open_sqlite(path: Path) -> Database:
    """Open the embedded default's database: WAL, every commit on disk before it returns (counting 1).

    The file is its owner's alone, whatever the folder and the umask allow; SQLite gives its others the same mode.
    """
    _own(path)
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=readers.AT_ONCE + 1,
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


def open_postgres(url: str, direct_url: str | None = None, prepare_threshold: int | None = None) -> Database:
    """Open the distributed database; `url` is `postgresql://...` in libpq's words (hosts, TLS and all).

    Connects on first use, and again after the server was away. Raise DatabaseUrlError.

    With `direct_url` a pooler stands at `url` that gives a connection to another client after each transaction: what
    needs a session of its own goes to `direct_url`. A statement is prepared when it was run `prepare_threshold` times,
    never at 0; None: 5 times, and never behind a pooler.

    Nothing commits later than TRANSACTION_BOUND_S after it began: our own check comes first, then the server bounds how
    long the COMMIT may stay away (a process that is stopped in between, a network that holds it back) and how long it
    may take. The server's settings hold for a session, behind a pooler for a transaction.
    """
    pooled = direct_url is not None
    prepares = (0 if pooled else _PREPARE_THRESHOLD) if prepare_threshold is None else prepare_threshold
    write_bounds, read_bounds = (_STATEMENT_BOUND_S, _IDLE_BOUND_S), (_READ_BOUND_S, _READ_BOUND_S)
    writer = _postgres_engine(url, "tollgate", _WRITERS, write_bounds, prepares, pooled=pooled)
    reader = _postgres_engine(url, "tollgate read", readers.AT_ONCE, read_bounds, prepares, pooled=pooled)
    event.listen(writer, "handle_error", replicas.leave)
    event.listen(reader, "connect", _only_read)
    session = None
    if direct_url is not None:
        session = _postgres_engine(direct_url, "tollgate session", 1, write_bounds, prepares, pooled=False)
    within_s = TRANSACTION_BOUND_S - _STATEMENT_BOUND_S - _IDLE_BOUND_S
    return Database(writer, reader, session, writers=_WRITERS, commit_within_s=within_s)


@contextmanager
def postgres(url: str, direct_url: str | None = None, prepare_threshold: int | None = None) -> Iterator[Database]:
    """`open_postgres` for the length of a `with` block."""
    database = open_postgres(url, direct_url, prepare_threshold)
    try:
        yield database
    finally:
        database.close()


def _postgres_engine(
    url: str, name: str, connections: int, bounds_s: tuple[float, float], prepares: int, *, pooled: bool
) -> Engine:
    # The address goes to the driver beside the engine: no URL of SQLAlchemy's could print its password, and libpq
    # reads it as every other tool does. An engine of its own parameters prints none of them in its errors either.
    settings = {
        "application_name": name,
        "TimeZone": "UTC",
        "DateStyle": "ISO, YMD",  # the driver reads no other, and a database may have one of its own
        "IntervalStyle": "postgres",
        "client_encoding": "UTF8",
        "statement_timeout": f"{bounds_s[0] * 1000:.0f}",
        "idle_in_transaction_session_timeout": f"{bounds_s[1] * 1000:.0f}",
    }
    engine = create_engine(
        "postgresql+psycopg://",
        pool_size=connections,
        pool_pre_ping=True,
        pool_recycle=_RECYCLE_S,
        hide_parameters=True,
    )
    given = _parsed(engine, url)
    driver: Any = engine.dialect.loaded_dbapi

    def connect(_dialect: Dialect, _record: Any, _arguments: Any, options: dict[str, Any]) -> Any:
        connection = driver.connect(**(_TCP | given | options), prepare_threshold=prepares or None, autocommit=True)
        if not pooled:
            connection.execute(*_set(settings, within="session"))
        connection.autocommit = False
        return connection

    event.listen(engine, "do_connect", connect)
    if pooled:  # what holds for a session would go to the pooler's next client, or be gone
        event.listen(engine, "begin", lambda begun: begun.exec_driver_sql(*_set(settings, within="transaction")))
    return engine


def _parsed(engine: Engine, url: str) -> dict[str, Any]:
    """Return what `url` says. Its reader's own messages may quote it and its password, so none is passed on."""
    driver: Any = engine.dialect.loaded_dbapi
    parsed: dict[str, Any] = {}
    if url.startswith(("postgresql://", "postgres://")):
        with suppress(driver.Error, ValueError):
            parsed = driver.conninfo.conninfo_to_dict(url)
    # A password whose @ or / is not encoded ends up in the host, the port or the name, and so in the errors of connect.
    places = [str(parsed.get(name, "")) for name in ("host", "dbname")]
    ports = str(parsed.get("port", "")).replace(",", "")
    if not parsed or any("@" in place for place in places) or not (ports.isdecimal() or not ports):
        raise DatabaseUrlError("the database's URL must be postgresql://USER:PASSWORD@HOST:PORT/NAME, percent-encoded")
    return parsed


def _set(settings: dict[str, str], *, within: Literal["session", "transaction"]) -> tuple[str, tuple[str, ...]]:
    """Return the statement that sets them, and its parameters."""
    one = f"set_config(%s, %s, {str(within == 'transaction').lower()})"
    return "SELECT " + ", ".join([one] * len(settings)), tuple(word for pair in settings.items() for word in pair)


def _only_read(dbapi_connection: Any, _record: Any) -> None:
    dbapi_connection.read_only = True
    dbapi_connection.isolation_level = _REPEATABLE_READ  # else each query of a transaction sees another moment


def _own(path: Path) -> None:
    with suppress(OSError):  # what is wrong with the folder SQLite says, and a file of somebody else stays as it is
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        for each in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            if each.exists():
                each.chmod(0o600)


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
