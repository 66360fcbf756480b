"""How long what is counted is kept, and its removal by whole days in small steps (contract 4: "Kept").

Never removes a key of the ledger while an event of its day could still be counted. On PostgreSQL the ledger's days are
partitions, which `metering.store.day_partitions` drops.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import partial

from sqlalchemy import Connection, Table, delete, func, select, tuple_

from domain import ledger_days, sources
from metering.store import day_partitions, spreads
from metering.store.alerts import USAGE_ALERT
from metering.store.events import METERING_DUPLICATE, USAGE_EVENT
from metering.store.positions import METERING_POSITION
from metering.store.tables import KEY_DAILY, LIMIT_DAILY, USAGE_DAILY
from runtime import ids
from runtime.database import statements

LIMIT_DAYS = 40
"""How many days limit totals are kept, today among them: a month is the sum of its days'."""

USAGE_DAYS = 400
"""How many days daily usage is kept at least, as long as finance's topic has it; never less than the ledger."""

SPREAD_DAYS = 7
"""How long it is known of a tree that it lies in one lane again: the decisions' topic keeps what was told 2 days."""

STEP = 10_000
"""Rows that one transaction removes: a quarter of a second (ADR 52). Embedded, whoever writes waits for it."""

Step = Callable[[Connection], int]
"""Removes at most STEP rows of what has expired; returns how many."""


def newest(connection: Connection) -> datetime | None:
    """Return the end of the newest day that anything was counted of; None where nothing was."""
    days = [connection.execute(select(func.max(table.c.day))).scalar_one() for table in (USAGE_EVENT, USAGE_DAILY)]
    last = max((day for day in days if day is not None), default=None)
    return None if last is None else _midnight(ledger_days.after(last))


def steps(today: date, ledger: int, spools: Collection[str]) -> Mapping[str, Step]:
    """Return what removes each kind of thing, by its name; to be called again while a step was full.

    The ledger is kept for `ledger` days, today among them. `spools` are the topics of those spools that still exist.
    """
    first = ledger_days.first(today, ledger)
    usage = ledger_days.first(today, max(USAGE_DAYS, ledger))
    return {
        "events": partial(_forget_events, first=first),
        "duplicates": partial(_forget_duplicates, before=first - timedelta(days=ledger_days.LATE_DAYS)),
        "daily usage": partial(_forget_days, USAGE_DAILY, before=usage),
        "daily usage by key": partial(_forget_days, KEY_DAILY, before=usage),
        "limit totals": partial(_forget_days, LIMIT_DAILY, before=ledger_days.first(today, LIMIT_DAYS)),
        "usage alerts": partial(_forget_days, USAGE_ALERT, before=ledger_days.first(today, LIMIT_DAYS)),
        "busy trees": partial(spreads.forget, before=_midnight(today - timedelta(days=SPREAD_DAYS))),
        "positions": partial(_forget_positions, before=first, spools=spools),
    }


def _forget_days(table: Table, connection: Connection, before: date) -> int:
    return connection.execute(statements.removal(table, before, STEP)).rowcount


def _forget_events(connection: Connection, first: date) -> int:
    """Close the days before `first` to new events, then remove theirs."""
    if connection.dialect.name == "postgresql":
        return 0
    closed = day_partitions.close(connection, first)
    return _forget_days(USAGE_EVENT, connection, closed)


def _forget_duplicates(connection: Connection, before: date) -> int:
    """Remove the numbers of duplicates by their keys, which begin with the moment of the admission."""
    columns = METERING_DUPLICATE.c
    place = (columns.instance, columns.sequence)
    old = select(*place).where(columns.idempotency_key < ids.first_of(_midnight(before))).limit(STEP)
    return connection.execute(delete(METERING_DUPLICATE).where(tuple_(*place).in_(old))).rowcount


def _forget_positions(connection: Connection, before: date, spools: Collection[str]) -> int:
    """Remove the positions of spools that are gone, once their last events are."""
    columns = METERING_POSITION.c
    gone = columns.topic.startswith(sources.SPOOL, autoescape=True) & columns.topic.not_in(spools)
    moved_before = columns.recorded_at < _midnight(before)
    connection.execute(delete(METERING_POSITION).where(gone, moved_before))
    return 0


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
