"""Runs and writes the migrations with Alembic; the one module that imports it, a tenth of a command's start."""

import importlib

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool

TABLE_MODULES = (
    "runtime.config.log",
    "control.store.tables",
    "control.store.monitoring.tables",
    "metering.store.transaction",
    "webhooks.store.tables",
    "tollgate.migrations",
)
"""The modules that register the product's tables in METADATA."""

_LOCATION = "tollgate:migrations"  # the installed package, wherever that is: there is no alembic.ini


def upgrade(connection: Connection) -> None:
    """Run every migration that the database has not had, in the caller's transaction."""
    command.upgrade(_config(connection), "head")


def draft(revision: str, message: str) -> None:
    """Write a migration from what the earlier ones make to what the code's tables are (a developer's tool)."""
    for name in TABLE_MODULES:
        importlib.import_module(name)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        upgrade(connection)
        command.revision(_config(connection), message=message, rev_id=revision, autogenerate=True)
    engine.dispose()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", _LOCATION)
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config
