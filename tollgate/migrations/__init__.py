"""Brings the relational schema up to date, and says whether it is (contract 6: `migrate`, and at every start).

Two upgrades at once take turns: the second waits for the first one's transaction and finds nothing to do. Never takes
from a program what it needs: migrations only add, until `finish` (ADR 55).
"""

import importlib
from importlib import resources

from sqlalchemy import Column, Connection, String, Table, column, inspect, select, table, update

from runtime.database.engines import METADATA, Database

_VERSIONS = "tollgate.migrations.versions"
_RUN_THAT = "run the program that made it, or a later one"
_VERSION = table("alembic_version", column("version_num"))
"""Alembic's own table: one row, the revision of the last migration that was run."""


SCHEMA_FINISHED = Table("schema_finished", METADATA, Column("revision", String, primary_key=True))
"""One row: programs whose newest migration is this one or a later one can work with the schema."""


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


def finish(database: Database) -> str:
    """Remove what the releases before this one need; return the oldest revision that works from now on.

    To be called when no process of them runs any more. Safe to repeat. Raise MigrationError before `upgrade`.
    """
    problems = check(database)
    if problems or newer(database):
        raise MigrationError("; ".join(problems) or "the schema is a newer program's: finish it by that")
    return database.change_schema(_finish)


def newer(database: Database) -> str | None:
    """Return the schema's revision where a newer program made it, and this one works with it all the same."""
    current = database.read_now(_revision)
    return None if current in {None, *known()} else current


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
        works = database.read_now(_finished) <= revisions[-1]
        return [] if works else [f"the database's schema {current} is newer than this program; {_RUN_THAT}"]
    return [f"the database's schema is {current}, {revisions[-1]} is needed; run 'tollgate migrate'"]


def known() -> list[str]:
    """Return every migration's revision, oldest first: a migration's file is called by its number."""
    return [name.partition("_")[0] for name in _modules()]


def _modules() -> list[str]:
    files = resources.files(_VERSIONS).iterdir()
    return sorted(file.name.removesuffix(".py") for file in files if file.name[:1].isdigit())


def _upgrade(connection: Connection) -> None:
    current = _revision(connection)
    if current is not None and current not in known():
        raise MigrationError(f"the database's schema {current} is newer than this program; {_RUN_THAT}")
    importlib.import_module("tollgate.migrations.scripts").upgrade(connection)
    if current is None:  # nobody works with it yet
        _finish(connection)


def _finish(connection: Connection) -> str:
    finished, revisions = _finished(connection), known()
    for name in _modules():
        if name.partition("_")[0] > finished:
            ending = getattr(importlib.import_module(f"{_VERSIONS}.{name}"), "finish", None)
            if ending is not None:
                ending(connection)
    connection.execute(update(SCHEMA_FINISHED).values(revision=revisions[-1]))
    return revisions[-1]


def _finished(connection: Connection) -> str:
    """Return the oldest revision whose program can work with the schema; a late one where the schema does not say."""
    if not inspect(connection).has_table(SCHEMA_FINISHED.name):
        return "~"  # behind every number
    revision: str = connection.execute(select(SCHEMA_FINISHED.c.revision)).scalar_one()
    return revision


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
