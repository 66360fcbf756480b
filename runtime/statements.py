"""What every store's SQL needs that differs by engine: inserts that can name a conflict, and how much one query names.

Never runs a statement and never names a table.
"""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite

Item = TypeVar("Item")

_CHUNK = 500  # keys in one query: far below every engine's bound on parameters


def insert_into(engine: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Begin an INSERT that can name its conflict, in the words of `engine` (SQLAlchemy's name of it)."""
    return postgresql.insert(table) if engine == "postgresql" else sqlite.insert(table)


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """Cut `items` so that one query names no more than an engine allows."""
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
