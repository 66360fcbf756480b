"""Over how many lanes the events of busy trees lie (counting 6)."""

from datetime import datetime

from sqlalchemy import Column, Connection, Integer, String, Table, delete, select

from runtime.database import statements
from runtime.database.engines import METADATA, UtcDateTime

TREE_SPREAD = Table(
    "tree_spread",
    METADATA,
    Column("group_id", String, primary_key=True),
    Column("lanes", Integer, nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)
"""`group_id` is the last that the tree's events are charged to. A row of 1 lane stays until all have heard of it."""


def read(connection: Connection) -> dict[str, int]:
    """Return how many lanes each tree has that ever lay in more than one."""
    columns = TREE_SPREAD.c
    return {row.group_id: row.lanes for row in connection.execute(select(columns.group_id, columns.lanes))}


def note(connection: Connection, tree: str, lanes: int, now: datetime) -> None:
    """Note over how many lanes a tree lies."""
    row = statements.insert_into(connection.dialect.name, TREE_SPREAD)
    change = {name: row.excluded[name] for name in ("lanes", "changed_at")}
    statement = row.on_conflict_do_update(index_elements=["group_id"], set_=change)
    connection.execute(statement, {"group_id": tree, "lanes": lanes, "changed_at": now})


def forget(connection: Connection, before: datetime) -> int:
    """Remove trees that lie in one lane since before `before`; return how many."""
    columns = TREE_SPREAD.c
    return connection.execute(delete(TREE_SPREAD).where(columns.lanes == 1, columns.changed_at < before)).rowcount
