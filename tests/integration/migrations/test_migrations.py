import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text

from runtime import config_log
from runtime import database as databases
from runtime.database import METADATA, Database
from tollgate import migrations

RACE = """
import sys
from pathlib import Path
from runtime import database
from tollgate import migrations
with database.sqlite(Path(sys.argv[1])) as opened:
    sys.stdin.readline()
    migrations.upgrade(opened)
    print(migrations.check(opened))
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with databases.sqlite(tmp_path / "tollgate.db") as opened:
        yield opened


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
    for name in migrations.TABLE_MODULES:
        importlib.import_module(name)
    migrations.upgrade(database)
    differences = database.read_now(
        lambda connection: compare_metadata(MigrationContext.configure(connection), METADATA)
    )
    assert differences == []


def test_a_newer_schema_is_refused(database: Database) -> None:
    migrations.upgrade(database)
    database.write_now(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    assert "newer" in migrations.check(database)[0]
    with pytest.raises(migrations.MigrationError, match="newer"):
        migrations.upgrade(database)


def test_an_upgrade_that_fails_leaves_nothing_behind(database: Database) -> None:
    database.write_now(lambda connection: connection.execute(text("CREATE TABLE webhook_settings (id INTEGER)")))
    with pytest.raises(Exception, match="already exists"):
        migrations.upgrade(database)
    tables = database.read_now(
        lambda connection: connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'table'")).scalars()
    )
    assert list(tables) == ["webhook_settings"]


@pytest.mark.slow
def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path / "tollgate.db")]
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
