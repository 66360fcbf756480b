"""Brings the relational schema up to date, and says whether it is (contract 6: `migrate`, and at every start).

Never runs two upgrades at once: the second waits for the first one's transaction and finds nothing to do.
"""

import importlib

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

from runtime.database.engines import Database

TABLE_MODULES = ("runtime.config.log", "control.store.tables", "metering.store.transaction", "webhooks.store.tables")
"""The modules that register the product's tables in METADATA."""

_LOCATION = "tollgate:migrations"  # the installed package, wherever that is: there is no alembic.ini


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message says why in one line."""


def upgrade(database: Database) -> None:
    """Bring the schema to what this code expects. Safe when several processes start at once. Raise MigrationError."""
    if not check(database):
        return
    database.change_schema(_upgrade)


def check(database: Database) -> list[str]:
    """Return what is wrong with the schema's version, in one line each; empty where it is current."""
    current, expected = database.read_now(_revision), _scripts().get_current_head()
    if current == expected:
        return []
    if current is None:
        return ["the database has no schema yet; run 'tollgate migrate'"]
    if not _known(current):
        return [f"the database's schema {current} is newer than this program; run the program that made it"]
    return [f"the database's schema is {current}, {expected} is needed; run 'tollgate migrate'"]


def draft(revision: str, message: str) -> None:
    """Write a migration from what the earlier ones make to what the code's tables are (a developer's tool)."""
    for name in TABLE_MODULES:
        importlib.import_module(name)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        config = _config(connection)
        command.upgrade(config, "head")
        command.revision(config, message=message, rev_id=revision, autogenerate=True)
    engine.dispose()


def _upgrade(connection: Connection) -> None:
    current = _revision(connection)
    if current is not None and not _known(current):
        raise MigrationError(f"the database's schema {current} is newer than this program")
    command.upgrade(_config(connection), "head")


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _known(revision: str) -> bool:
    try:
        return _scripts().get_revision(revision) is not None
    except CommandError:
        return False


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(None))


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", _LOCATION)
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config
