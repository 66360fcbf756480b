"""The ledger's days on PostgreSQL: one partition of `usage_event` for each UTC day, made ahead, dropped when expired.

Never makes a day again that was dropped, and never blocks the ledger's writers for longer than a short wait for a lock.
On SQLite the ledger is one table: none of its days is made, and what is closed (`close`) is removed row by row.
"""

from collections.abc import Collection, Sequence
from datetime import date

from sqlalchemy import Column, Connection, Date, Integer, Table, select, text

from domain import ledger_days
from domain.ledger_days import Days
from metering.store import events
from runtime.database import engines, statements
from runtime.database.engines import METADATA

LEDGER_START = Table(
    "ledger_start",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("first_day", Date, nullable=False),
)
"""One row, id 1, on SQLite alone: the first day that the ledger takes events of. No row: it takes every day."""

_LOCK = "ledger days"
_LOCK_WAIT = "2s"
_READERS = 8  # that read over all days at once: reports, exports, those who follow the events
_TABLE = events.USAGE_EVENT.name
_NAME = f"{_TABLE}_%Y_%m_%d"
_EXISTING = text(
    'SELECT min(name), max(name) FROM (SELECT CAST(relname AS text) COLLATE "C" AS name FROM pg_inherits'
    " JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = CAST(:parent AS regclass)) AS partitions"
)


def open_days(connection: Connection) -> Days:
    """Return the days that the ledger takes events of, both inclusive; `days.NONE` before the first `ensure`."""
    if connection.dialect.name != "postgresql":
        start = connection.execute(select(LEDGER_START.c.first_day)).scalar_one_or_none()
        return Days(start or date.min, date.max)
    first, last = connection.execute(_EXISTING, {"parent": _TABLE}).one()
    return ledger_days.NONE if first is None else Days(_day(first), _day(last))


def close(connection: Connection, first: date) -> date:
    """Close all days before `first` on SQLite, for good; return the first open one, later where later ones are closed.

    An event of a closed day is refused: its key may be gone, so it could count twice.
    """
    start = max(first, open_days(connection).first)
    kept = statements.insert_into(connection.dialect.name, LEDGER_START)
    connection.execute(
        kept.on_conflict_do_update(index_elements=["id"], set_={"first_day": start}), {"id": 1, "first_day": start}
    )
    return start


def check(connection: Connection, days: Collection[date]) -> None:
    """Raise DayClosedError where the ledger takes no events of one of `days`. On PostgreSQL its partitions say so."""
    if connection.dialect.name == "postgresql" or not days:
        return
    open_ = open_days(connection)
    for day in (min(days), max(days)):
        if not open_.holds(day):
            raise ledger_days.DayClosedError(open_.refusal(day))


def ensure(connection: Connection, today: date) -> Sequence[date]:
    """Make the days that are missing; return them. For every start, and once a day; any number may run it at once.

    On a fresh database those are the LATE_DAYS and the AHEAD_DAYS, later the ones between the last and the AHEAD_DAYS.
    """
    if connection.dialect.name != "postgresql":
        return ()
    today = _sane(connection, today)
    if not any(ledger_days.missing(today, open_days(connection)).each()):
        return ()
    engines.lock(connection, _LOCK)
    made = tuple(ledger_days.missing(today, open_days(connection)).each())
    for day in made:
        # PARTITION OF would lock the whole ledger against its writers; attaching an empty table does not.
        name = day.strftime(_NAME)
        connection.exec_driver_sql(f"CREATE TABLE {name} (LIKE {_TABLE} INCLUDING ALL)")
        connection.exec_driver_sql(
            f"ALTER TABLE {_TABLE} ATTACH PARTITION {name} FOR VALUES FROM ('{day}') TO ('{ledger_days.after(day)}')"
        )
    return made


def drop_expired(connection: Connection, today: date, keep_days: int) -> Sequence[date]:
    """Drop the days that are no longer among the last `keep_days`; return them. In its own transaction, once a day.

    Dropping needs the whole ledger for a moment. Where a long reader has it, this gives up soon, with an error that is
    transient (`runtime.outage`), so that the writers behind it need not wait.
    """
    if connection.dialect.name != "postgresql":
        return ()
    today = _sane(connection, today)
    engines.lock(connection, _LOCK)
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
    dropped = tuple(ledger_days.expired(today, keep_days, open_days(connection)).each())
    for day in dropped:
        connection.exec_driver_sql(f"DROP TABLE {day.strftime(_NAME)}")
    return dropped


def advice(connection: Connection, keep_days: int) -> str | None:
    """Say in one line which setting of the server is too small for a ledger of so many days; None where none is.

    Whoever reads the ledger by anything but its days locks each partition and its indexes. PostgreSQL's default leaves
    room for three such readers of 400 days; where there is none, any transaction may fail and is tried again.
    """
    if connection.dialect.name != "postgresql":
        return None
    settings = ("max_locks_per_transaction", "max_connections", "max_prepared_transactions")
    locks, *sessions = (int(connection.execute(text(f"SHOW {name}")).scalar_one()) for name in settings)
    each = (keep_days + ledger_days.AHEAD_DAYS) * (2 + len(events.USAGE_EVENT.indexes))
    needed = -(-_READERS * each // sum(sessions))
    if locks >= needed:
        return None
    return f"max_locks_per_transaction is {locks}; a ledger of {keep_days} days needs {needed} in postgresql.conf"


def _sane(connection: Connection, today: date) -> date:
    """Return `today`, but not beyond the database's own: a clock that is years ahead must not drop the ledger."""
    theirs: date = connection.execute(text("SELECT CURRENT_DATE")).scalar_one()
    return min(today, theirs)


def _day(name: str) -> date:
    return date(*map(int, name.removeprefix(f"{_TABLE}_").split("_")))
