"""A database that tests use in turn: each finds it as the first did, whatever those before have done."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager

import psycopg
import pytest

from tests.support import databases
from tests.support.databases import Kept

MADE = """
CREATE TABLE parent (id serial PRIMARY KEY, name text);
CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent, above int REFERENCES child);
CREATE TABLE many (day date) PARTITION BY RANGE (day);
CREATE TABLE march PARTITION OF many FOR VALUES FROM ('2025-03-01') TO ('2025-04-01');
INSERT INTO parent (name) VALUES ('first'), (NULL);
INSERT INTO child VALUES (1, 1, NULL), (2, 2, 1);
SELECT setval('parent_id_seq', 1, false);
"""
ROWS = [
    ("SELECT name FROM parent ORDER BY id", [("first",), (None,)]),
    ("SELECT * FROM child ORDER BY id", [(1, 1, None), (2, 2, 1)]),
    ("SELECT count(*) FROM many", [(0,)]),
    ("SELECT nextval('parent_id_seq')", [(1,)]),
    ("SELECT pg_try_advisory_lock(7)", [(True,)]),
]


@pytest.fixture
def kept(postgres_server: str) -> Iterator[Kept]:
    @contextmanager
    def make() -> Iterator[str]:
        with databases.fresh(postgres_server, "t-") as url:
            run(url, MADE)
            yield url

    with closing(Kept(make)) as made:
        yield made


def connected(url: str) -> AbstractContextManager[psycopg.Connection]:
    return closing(psycopg.connect(url, autocommit=True))


def run(url: str, words: str) -> None:
    with connected(url) as connection:
        connection.execute(words)


def is_as_made(url: str) -> None:
    with connected(url) as connection:
        for query, expected in ROWS:
            assert connection.execute(query).fetchall() == expected, query


@pytest.mark.parametrize(
    "done",
    [
        "INSERT INTO child VALUES (3, 1, 2); INSERT INTO many VALUES ('2025-03-10')",
        "DELETE FROM child; DELETE FROM parent",
        "UPDATE parent SET name = 'other'; ANALYZE; VACUUM parent",
        "SELECT nextval('parent_id_seq') FROM generate_series(1, 5)",
    ],
)
def test_rows_are_put_back_in_the_same_database(kept: Kept, done: str) -> None:
    with kept.lent() as first:
        for words in done.split(";"):
            run(first, words)
    with kept.lent() as second:
        assert second == first
        is_as_made(second)


@pytest.mark.parametrize(
    "done",
    [
        "CREATE TABLE april PARTITION OF many FOR VALUES FROM ('2025-04-01') TO ('2025-05-01')",
        "DROP TABLE march",
        "ALTER TABLE parent RENAME TO gone",
        "ALTER TABLE parent ADD COLUMN more int",
        "ALTER TABLE parent ADD CHECK (name <> '')",
        "CREATE INDEX ON parent (name)",
        "CREATE VIEW seen AS SELECT * FROM parent",
        "CREATE FUNCTION rule() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER rule BEFORE UPDATE ON parent FOR EACH ROW "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ],
)
def test_one_whose_tables_or_rules_were_changed_is_not_lent_again(kept: Kept, done: str, postgres_server: str) -> None:
    with kept.lent() as first:
        run(first, done)
    with kept.lent() as second:
        assert second != first
        is_as_made(second)
    with connected(postgres_server) as connection:
        names = [name for (name,) in connection.execute("SELECT datname FROM pg_database")]
    assert first.rpartition("/")[2] not in names


def test_sessions_that_were_left_open_end_with_their_locks(kept: Kept) -> None:
    with kept.lent() as url:
        idle, busy = psycopg.connect(url, autocommit=True), psycopg.connect(url)
        idle.execute("SELECT pg_advisory_lock(7)")
        busy.execute("UPDATE parent SET name = 'other'")
    with kept.lent() as url:
        is_as_made(url)
    for session in (idle, busy):
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        session.close()


def test_a_test_that_fails_leaves_nothing_either(kept: Kept) -> None:
    def fail() -> None:
        with kept.lent() as url:
            run(url, "DELETE FROM child")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with kept.lent() as url:
        is_as_made(url)
