"""Does much on the database in small transactions, with a rest after each, so that others get their turn."""

from collections.abc import Callable

from sqlalchemy import Connection

from runtime import loops
from runtime.database.engines import Database
from runtime.outage import Pause

REST_S = 0.05
"""How long the next step waits: SQLite has one writer at a time."""


async def run_all(database: Database, step: Callable[[Connection], int], limit: int, pause: Pause) -> int:
    """Run `step`, which does at most `limit` things and returns how many, until it finds fewer; return their sum."""
    total = 0
    while True:
        count = await database.write(step)
        total += count
        loops.turned(count)
        if count < limit:
            return total
        await pause(REST_S)
