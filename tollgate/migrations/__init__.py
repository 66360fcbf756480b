"""Brings the relational schema up to date, and says whether it is (contract 6: `migrate`, and at every start).

Never runs two upgrades at once: the second waits for the first one's transaction and finds nothing to do.
"""

import importlib
from importlib import resources

from sqlalchemy import Connection, column, inspect, select, table

from runtime.database.engines import Database

_VERSION = table("alembic_version", column("version_num"))
"""Alembic's own table: one row, the revision of the last migration that was run."""


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message says why in one line."""


def upgrade(database: Database) -> None:
    """Bring the schema to what this code expects. Safe when several processes start at once. Raise MigrationError."""
    if not check(database):
        return
    problem = database.read_now(_encoding_problem)
    if problem is not None:
        raise MigrationError(problem)
    database.change_schema(_upgrade)


def check(database: Database) -> list[str]:
    """Return what is wrong with the schema's version, in one line each; empty where it is current."""
    problem = database.read_now(_encoding_problem)
    if problem is not None:
        return [problem]
    current, revisions = database.read_now(_revision), known()
    if current == revisions[-1]:
        return []
    if current is None:
        return ["the database has no schema yet; run 'tollgate migrate'"]
    if current not in revisions:
        return [f"the database's schema {current} is newer than this program; run the program that made it"]
    return [f"the database's schema is {current}, {revisions[-1]} is needed; run 'tollgate migrate'"]


def known() -> list[str]:
    """Return every migration's revision, oldest first: a migration's file is called by its number."""
    files = resources.files("tollgate.migrations.versions").iterdir()
    return sorted(file.name.partition("_")[0] for file in files if file.name[:1].isdigit())


def _upgrade(connection: Connection) -> None:
    current = _revision(connection)
    if current is not None and current not in known():
        raise MigrationError(f"the database's schema {current} is newer than this program")
    importlib.import_module("tollgate.migrations.scripts").upgrade(connection)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar_one_or_none()


def _encoding_problem(connection: Connection) -> str | None:
    """Say why the database cannot hold every text, and what to do; None where it can."""
    if connection.dialect.name != "postgresql":
        return None
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding == "UTF8":
        return None
    return (
        f"the database's encoding is {encoding}, which cannot hold every text; make one with CREATE DATABASE ..."
        " ENCODING 'UTF8' TEMPLATE template0, migrate that, and name it in TOLLGATE_DATABASE_URL"
    )
