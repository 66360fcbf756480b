"""PostgreSQL databases for tests: fresh ones, and one that tests use in turn, each finds it as the first did."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from datetime import date
from graphlib import TopologicalSorter
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from domain import ledger_days
from infra.local import pgbouncer
from infra.local.pgbouncer import Pooler
from metering.store import day_partitions
from runtime.database import engines
from tests.support import services
from tests.unit.metering.factories import NOON
from tollgate import migrations

_TABLES = (
    "SELECT oid::regclass::text FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition"
)
_REFERENCES = (
    "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint"
    " WHERE contype = 'f' AND conrelid <> confrelid"
)
_SEQUENCES = "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S'"
# A row of these catalogs gets another xmin when it is changed; VACUUM and ANALYZE change it in place.
_SCHEMA = """
SELECT md5(string_agg(kind || oid || ' ' || xmin, ',' ORDER BY kind, oid)) FROM (
SELECT 'class', oid, xmin FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL SELECT 'constraint', oid, xmin FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'function', oid, xmin FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'trigger', oid, xmin FROM pg_trigger) AS part (kind, oid, xmin)
"""
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"  # waits for the end: it frees the locks
    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@contextmanager
def fresh(server: str, prefix: str, template: str = "template1") -> Iterator[str]:
    """Make a database for the length of a `with` block, its name begins with `prefix`; return its URL."""
    name = prefix + secrets.token_hex(6)
    _administer(server, sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*map(sql.Identifier, (name, template))))
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        _administer(server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


class Kept:
    """A database that `make` makes, lent to one test after the other; `close` drops it.

    Emptied by DELETE: CREATE DATABASE takes fifty times as long, TRUNCATE thirty times.
    """

    def __init__(self, make: Callable[[], AbstractContextManager[str]]) -> None:
        self._make = make
        self._stack = ExitStack()
        self._look: _Look | None = None

    @contextmanager
    def lent(self) -> Iterator[str]:
        """Return its URL; when the block ends, every session in it ends too and its rows are those of the beginning."""
        if self._look is None:
            self._look = _Look(self._stack.enter_context(self._make()))
        try:
            yield self._look.url
        finally:
            if not self._look.restore():
                self.close()

    def close(self) -> None:
        """Drop it; the next who asks gets another."""
        self._look = None
        self._stack.close()


class _Look:
    """What a database held when it was looked at."""

    def __init__(self, url: str) -> None:
        self.url = url
        with _connected(url) as connection:
            self._schema = _schema(connection)
            self._tables = _referring_first(connection)
            copies = {table: _copy_out(connection, table) for table in self._tables}
        self._rows = {table: rows for table, rows in reversed(copies.items()) if rows}

    def restore(self) -> bool:
        """End the other sessions and make the rows as they were; False where the schema is another."""
        with _connected(self.url) as connection, connection.transaction():
            connection.execute(_END_OTHERS)
            if _schema(connection) != self._schema:
                return False
            connection.execute("; ".join(f"DELETE FROM {table}" for table in self._tables))
            for table, rows in self._rows.items():
                with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                    copy.write(rows)
            connection.execute(_SEQUENCES)
        return True


def _schema(connection: psycopg.Connection[Any]) -> Any:
    return connection.execute(_SCHEMA).fetchall()


def _referring_first(connection: psycopg.Connection[Any]) -> list[str]:
    graph: dict[str, set[str]] = {table: set() for (table,) in connection.execute(_TABLES)}
    for referring, referred in connection.execute(_REFERENCES):
        graph[referred].add(referring)
    return list(TopologicalSorter(graph).static_order())


def _copy_out(connection: psycopg.Connection[Any], table: str) -> bytes:
    with connection.cursor().copy(f"COPY (SELECT * FROM {table}) TO STDOUT") as copy:
        return b"".join(bytes(part) for part in copy)


def _connected(url: str) -> closing[psycopg.Connection[Any]]:
    return closing(psycopg.connect(url, autocommit=True, connect_timeout=10))


def _administer(server: str, statement: sql.Composed) -> None:
    with _connected(server) as connection:
        connection.execute(statement)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """A fresh, empty database."""
    with fresh(postgres_server, services.PREFIX) as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a migrated database, to be copied."""
    with fresh(postgres_server, services.PREFIX) as url:
        with engines.postgres(url) as opened:
            migrations.upgrade(opened)
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture(scope="module")
def pooler(pgbouncer_installed: None, postgres_server: str) -> Iterator[Pooler]:
    """A pool in transaction mode before the tests' server."""
    with services.folder("pgbouncer") as folder, pgbouncer.running(folder, postgres_server) as running:
        yield running


class Lender:
    """The kept databases of a run, migrated, each with other days in its ledger."""

    def __init__(self, server: str, template: str) -> None:
        self._server, self._template = server, template
        self._kept: dict[tuple[date | None, int], Kept] = {}

    def lent(self, day: date | None = None, late_days: int = 10) -> AbstractContextManager[str]:
        """Lend one whose ledger has the days around `day`, `late_days` before it, or none at all; see `Kept.lent`.

        A hundred days take longer to make than most tests take, and a while to empty.
        """
        around = day, late_days
        if around not in self._kept:
            self._kept[around] = Kept(lambda: self._made(day, late_days))
        return self._kept[around].lent()

    def close(self) -> None:
        """Drop them."""
        for kept in self._kept.values():
            kept.close()

    @contextmanager
    def _made(self, day: date | None, late_days: int) -> Iterator[str]:
        with fresh(self._server, services.PREFIX, self._template) as url:
            if day is not None:
                with engines.postgres(url) as opened, pytest.MonkeyPatch.context() as these:
                    these.setattr(ledger_days, "LATE_DAYS", late_days)
                    opened.write_now(lambda connection: day_partitions.ensure(connection, day))
            yield url


@pytest.fixture(scope="session")
def postgres_lender(postgres_server: str, postgres_template: str) -> Iterator[Lender]:
    """The databases that tests use in turn."""
    with closing(Lender(postgres_server, postgres_template)) as lender:
        yield lender


@pytest.fixture
def postgres_migrated_url(postgres_lender: Lender) -> Iterator[str]:
    """A migrated database that nobody else uses and that holds nothing: the one that `postgres` opens."""
    with postgres_lender.lent() as url:
        yield url


@pytest.fixture
def postgres(postgres_migrated_url: str) -> Iterator[engines.Database]:
    """A migrated database that holds nothing, opened."""
    with engines.postgres(postgres_migrated_url) as opened:
        yield opened


@pytest.fixture
def postgres_with_days_url(postgres_lender: Lender) -> Iterator[str]:
    """As `postgres_migrated_url`, another database, whose ledger has the days around NOON."""
    with postgres_lender.lent(NOON.date()) as url:
        yield url
