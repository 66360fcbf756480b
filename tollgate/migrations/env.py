"""What Alembic runs to reach the database: the connection that `scripts` hands it.

To write 0001 anew while no release has it, at the top of a checkout:

    rm tollgate/migrations/versions/0001_*.py
    .venv/bin/python -c 'from tollgate.migrations import scripts; scripts.draft("0001", "initial")'

A later change of tables gets the next number instead: ``scripts.draft("0002", "secrets")``.
"""

from collections.abc import Iterable
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from alembic.operations.ops import CreateTableOp, ExecuteSQLOp, MigrationScript

from runtime.config import log as config_log
from runtime.database import engines


def _render(kind: str, item: Any, _: Any) -> str | Literal[False]:
    if kind == "type" and isinstance(item, engines.UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and type(item) is sa.String:
        return f"text({item.length or ''})"
    return False


def _seed(_: Any, __: Any, directives: list[MigrationScript]) -> None:
    for script in directives:
        operations = script.upgrade_ops.ops if script.upgrade_ops else []
        if any(table == config_log.CONFIG_VERSION.name for table in _made(operations)):
            operations.append(ExecuteSQLOp("INSERT INTO config_version (id, version) VALUES (1, 0)"))


def _made(operations: Iterable[Any]) -> Iterable[str]:
    return (operation.table_name for operation in operations if isinstance(operation, CreateTableOp))


def _run(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=engines.METADATA,
        render_item=_render,
        render_as_batch=connection.dialect.name == "sqlite",
        process_revision_directives=_seed,
    )
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])
