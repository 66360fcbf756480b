"""Databases whose settings are not the usual: refused in words where they cannot hold every text, else no matter."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from psycopg import sql
from sqlalchemy import Select, bindparam, select

from runtime.database import engines
from tests.support.databases import _administer
from tollgate import migrations

Make = Callable[[str, str], str]


@pytest.fixture
def make(postgres_server: str) -> Iterator[Make]:
    """Make a database with these options, and this ALTER, and return its URL."""
    names: list[sql.Identifier] = []

    def made(options: str, alter: str) -> str:
        name = f"odd_{len(names)}"
        names.append(sql.Identifier(name))
        _administer(postgres_server, sql.SQL("CREATE DATABASE {} " + options).format(names[-1]))
        if alter:
            _administer(postgres_server, sql.SQL("ALTER DATABASE {} " + alter).format(names[-1]))
        return urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))

    yield made
    for name in names:
        _administer(postgres_server, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_that_cannot_hold_every_text_is_refused(make: Make, encoding: str) -> None:
    url = make(f"ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", "")
    with engines.postgres(url) as opened:
        (problem,) = migrations.check(opened)
        assert problem.startswith(f"the database's encoding is {encoding}, which cannot hold every text; make one with")
        with pytest.raises(migrations.MigrationError, match=f"the database's encoding is {encoding}"):
            migrations.upgrade(opened)


@pytest.mark.parametrize(
    "alter", ["SET datestyle = 'SQL, DMY'", "SET intervalstyle = 'sql_standard'", "SET client_encoding = 'LATIN1'"]
)
def test_a_databases_own_ways_of_writing_change_nothing(make: Make, alter: str) -> None:
    moment, text = datetime(2026, 11, 2, 3, 4, 5, 678000, UTC), '{"team": "\U0001f600"}'
    with engines.postgres(make("ENCODING 'UTF8' TEMPLATE template0", alter)) as opened:
        query: Select[Any, Any] = select(bindparam("moment", moment, engines.UtcDateTime()), bindparam("text", text))
        for run in (opened.read_now, opened.write_now):
            assert run(lambda connection: tuple(connection.execute(query).one())) == (moment, text)
        assert migrations.check(opened) == ["the database has no schema yet; run 'tollgate migrate'"]
