"""How far each partition of a topic is read: rows of `topic`, `partition`, `next_offset`, moved by compare-and-set.

A position is moved in the transaction that keeps what was read, and only from where its caller saw it: another process
may own the partition by now.
"""

from functools import cache
from typing import Any

from sqlalchemy import Connection, Table, Update, bindparam, update

from runtime.database import statements


def move(connection: Connection, table: Table, place: tuple[str, int], at: int | None, /, **values: Any) -> bool:
    """Set a row's `values`, `next_offset` among them, if that is still `at`; return whether it was.

    `at` None: there is no row yet, and one is inserted.
    """
    topic, partition = place
    if at is not None:
        here = {"of_topic": topic, "of_partition": partition, "of_offset": at}
        return connection.execute(_update(table), {**here, **values}).rowcount == 1
    begin = statements.insert_into(connection.dialect.name, table).on_conflict_do_nothing()
    # RETURNING, because not every driver counts the rows of an INSERT.
    begun = connection.execute(begin.returning(table.c.partition), {"topic": topic, "partition": partition, **values})
    return begun.first() is not None


@cache
def _update(table: Table) -> Update:
    columns = table.c
    return update(table).where(
        columns.topic == bindparam("of_topic"),
        columns.partition == bindparam("of_partition"),
        columns.next_offset == bindparam("of_offset"),
    )
