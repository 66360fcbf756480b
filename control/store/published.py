"""How far the relay has got: what Kafka has acknowledged (counting 8).

Never goes back, except for the end of a topic that was lost.
"""

from sqlalchemy import Connection, select

from control.store.tables import RELAY_MARK
from runtime.database import statements

CONFIG = "config"
"""The newest version of the configuration's log that was sent."""
CONFIG_END = "config end"
"""The end of the topic when it was last seen to hold the whole configuration; 0 where it never did."""
CORRECTIONS = "corrections"
"""The last sequence of the corrections that was sent."""


def read(connection: Connection, name: str) -> int:
    """Return a mark, 0 where there is none."""
    value: int | None = connection.execute(select(RELAY_MARK.c.value).where(RELAY_MARK.c.name == name)).scalar()
    return value or 0


def advance(connection: Connection, name: str, value: int) -> None:
    """Move a mark; a value below it changes nothing."""
    row = statements.insert_into(connection.dialect.name, RELAY_MARK)
    columns = {RELAY_MARK.c.value: row.excluded.value}
    step = row.on_conflict_do_update(
        index_elements=["name"], set_=columns, where=row.excluded.value > RELAY_MARK.c.value
    )
    connection.execute(step, {"name": name, "value": value})


def put(connection: Connection, name: str, value: int) -> None:
    """Set a mark, also to less than it was."""
    row = statements.insert_into(connection.dialect.name, RELAY_MARK)
    step = row.on_conflict_do_update(index_elements=["name"], set_={RELAY_MARK.c.value: row.excluded.value})
    connection.execute(step, {"name": name, "value": value})
