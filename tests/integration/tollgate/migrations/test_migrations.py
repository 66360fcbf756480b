import importlib
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, select, text

from metering.store import day_partitions
from runtime.config import log as config_log
from runtime.database import engines as databases
from runtime.database.engines import METADATA, Database
from tests.support import engines
from tollgate import migrations
from tollgate.migrations import scripts

RACE = """
import sys
from pathlib import Path
from runtime.database import engines as database
from tollgate import migrations
place = sys.argv[1]
with database.postgres(place) if place.startswith("postgresql:") else database.sqlite(Path(place)) as opened:
    sys.stdin.readline()
    migrations.upgrade(opened)
    print(migrations.check(opened))
"""


NOT_IN_BYTE_ORDER = """
SELECT DISTINCT attrelid::regclass::text, attname FROM pg_index
JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)
JOIN pg_collation ON pg_collation.oid = attcollation
WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace) AND collname <> 'C'
AND attrelid <> 'alembic_version'::regclass
"""


@pytest.fixture(params=engines.ENGINES)
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Name an empty database of each engine in turn."""
    if request.param == "sqlite":
        return str(tmp_path / "tollgate.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def database(where: str) -> Iterator[Database]:
    opening = databases.postgres(where) if where.startswith("postgresql:") else databases.sqlite(Path(where))
    with opening as opened:
        yield opened


def is_ours(item: object, name: str | None, kind: str, *_: object) -> bool:
    return kind != "table" or not str(name).startswith("usage_event_")  # the ledger's days


def test_an_empty_database_is_brought_up_to_date(database: Database) -> None:
    assert "no schema" in migrations.check(database)[0]
    migrations.upgrade(database)
    assert migrations.check(database) == []
    rows = database.read_now(lambda connection: connection.execute(select(config_log.CONFIG_VERSION)).all())
    assert [tuple(row) for row in rows] == [(1, 0)]


def test_a_second_upgrade_changes_nothing(database: Database) -> None:
    migrations.upgrade(database)
    database.write_now(lambda connection: connection.execute(text("UPDATE config_version SET version = 7")))
    migrations.upgrade(database)
    assert database.read_now(config_log.current_version) == 7


def test_the_migrations_make_what_the_code_says(database: Database) -> None:
    for name in scripts.TABLE_MODULES:
        importlib.import_module(name)
    migrations.upgrade(database)
    differences = database.read_now(
        lambda connection: compare_metadata(
            MigrationContext.configure(connection, opts={"include_object": is_ours}), METADATA
        )
    )
    assert differences == []


def test_what_postgresql_indexes_is_in_byte_order(postgres: Database) -> None:
    postgres.write_now(lambda connection: day_partitions.ensure(connection, date(2025, 3, 1)))
    found = postgres.read_now(lambda connection: connection.execute(text(NOT_IN_BYTE_ORDER)).all())
    assert found == [], "another order is slower, and an update of the server's libc spoils its indexes"


def test_alembic_finds_the_migrations_that_we_name(database: Database) -> None:
    found = ScriptDirectory(str(Path(migrations.__path__[0]))).walk_revisions()
    assert [script.revision for script in found] == migrations.known()[::-1]


def test_a_current_schema_is_seen_without_alembic(where: str, database: Database) -> None:
    migrations.upgrade(database)
    run = subprocess.run(
        [sys.executable, "-c", RACE + "assert 'alembic' not in sys.modules", where],
        input="go\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.stdout, run.stderr) == ("[]\n", "")


def marked(database: Database, revision: str, finished: str) -> None:
    """Let the schema be a later program's, and say which one may still work with it."""

    def work(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})
        connection.execute(text("UPDATE schema_finished SET revision = :it"), {"it": finished})

    database.write_now(work)


def test_a_schema_that_a_newer_program_finished_is_refused(database: Database) -> None:
    migrations.upgrade(database)
    marked(database, "9999", "9998")
    assert "9999 is newer than this program; run the program that made it" in migrations.check(database)[0]
    with pytest.raises(migrations.MigrationError, match="newer"):
        migrations.upgrade(database)
    database.write_now(lambda connection: connection.execute(text("DROP TABLE schema_finished")))
    assert "newer" in migrations.check(database)[0], "one that does not say who may work with it"


def test_a_newer_schema_that_is_not_finished_is_worked_with(database: Database) -> None:
    migrations.upgrade(database)
    assert migrations.newer(database) is None
    marked(database, "9999", migrations.known()[-1])
    assert (migrations.check(database), migrations.newer(database)) == ([], "9999")
    migrations.upgrade(database)
    with pytest.raises(migrations.MigrationError, match="newer program's: finish it by that"):
        migrations.finish(database)
    marked(database, "9999", "0001")
    assert migrations.check(database) == []


def test_finishing_runs_what_each_migration_left_for_it_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations.upgrade(database)
    last = importlib.import_module(f"tollgate.migrations.versions.{migrations._modules()[-1]}")
    seen: list[bool] = []
    monkeypatch.setattr(last, "finish", lambda connection: seen.append(connection.in_transaction()), raising=False)
    marked(database, migrations.known()[-1], migrations.known()[-2])
    assert migrations.finish(database) == migrations.known()[-1]
    assert seen == [True]
    assert migrations.finish(database) == migrations.known()[-1]
    assert seen == [True]


def test_an_empty_database_is_finished_at_once_and_another_is_not(database: Database) -> None:
    migrations.upgrade(database)
    assert finished(database) == migrations.known()[-1]
    marked(database, migrations.known()[-1], "0018")
    migrations.upgrade(database)
    assert finished(database) == "0018", "the release before may still run"


def finished(database: Database) -> str:
    query = select(migrations.SCHEMA_FINISHED.c.revision)
    return database.read_now(lambda connection: str(connection.execute(query).scalar_one()))


def test_nobody_finishes_before_the_upgrade(database: Database) -> None:
    with pytest.raises(migrations.MigrationError, match="no schema yet"):
        migrations.finish(database)


def test_an_upgrade_that_fails_leaves_nothing_behind(database: Database) -> None:
    database.write_now(lambda connection: connection.execute(text("CREATE TABLE webhook_settings (id INTEGER)")))
    with pytest.raises(Exception, match="already exists"):
        migrations.upgrade(database)
    tables = database.read_now(
        lambda connection: inspect(connection).get_table_names(),
    )
    assert tables == ["webhook_settings"]


@pytest.mark.slow
def test_processes_that_start_at_once_agree(where: str) -> None:
    command = [sys.executable, "-c", RACE, where]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    answers = [racer.communicate(timeout=60) for racer in racers]
    assert answers == [("[]\n", "")] * 4
