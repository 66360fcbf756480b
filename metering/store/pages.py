"""Reads the ledger in pages, for whoever follows or exports it (contract 2.5).

Never returns an event whose transaction might still be overtaken by an earlier one: `recorded_before` says what may be
shown, and the caller keeps it behind every transaction that can still commit.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, or_, select

from metering.store import events
from metering.store.events import USAGE_EVENT
from runtime import ids
from schemas.usage import Kind, UsageEvent


class Order(StrEnum):
    """By what a reader's window, order and place go."""

    TIMESTAMP = "timestamp"
    RECORDED = "recorded"


class PageStart(NamedTuple):
    """A point in an order: what follows has a later moment, or the same and a greater key."""

    moment: datetime
    key: str


class LedgerEntry(NamedTuple):
    """An event and when the ledger took it, by the ledger's own clock."""

    event: UsageEvent
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class EventQuery:
    """What is read: events of one workspace behind `after`, and before `end` (exclusive)."""

    workspace_id: str
    order: Order
    after: PageStart
    """Exclusive. A window's inclusive start is the place of its moment with an empty key."""
    end: datetime
    api_key_prefix: str | None = None
    external_entity_id: str | None = None
    request_id: str | None = None


def page(connection: Connection, window: EventQuery, recorded_before: datetime, limit: int) -> list[LedgerEntry]:
    """Return at most `limit` events of a window, in its order, of those recorded before `recorded_before`."""
    columns = USAGE_EVENT.c
    moment = columns.recorded_at if window.order is Order.RECORDED else columns.timestamp
    after = window.after
    conditions: list[ColumnElement[bool]] = [
        columns.workspace_id == window.workspace_id,
        columns.recorded_at < recorded_before,
        moment >= after.moment,
        moment < window.end,
        or_(moment > after.moment, and_(moment == after.moment, columns.idempotency_key > after.key)),
    ]
    if window.order is Order.TIMESTAMP:  # an event lies in the partition of its own timestamp's day
        conditions.append(columns.day.between(after.moment.date(), window.end.date()))
    conditions += _named(window)
    query = select(USAGE_EVENT).where(*conditions).order_by(moment, columns.idempotency_key).limit(limit)
    return [_entry(row) for row in connection.execute(query).mappings()]


def newest(connection: Connection, window: EventQuery, before: PageStart | None, limit: int) -> list[LedgerEntry]:
    """Return at most `limit` events of a window, the newest admission first, of those below `before`.

    For people who look: what was recorded a moment ago is among them, and an earlier event may still come.
    """
    columns = USAGE_EVENT.c
    moment, key = columns.timestamp, columns.idempotency_key
    conditions: list[ColumnElement[bool]] = [
        columns.workspace_id == window.workspace_id,
        moment >= window.after.moment,
        moment < window.end,
        columns.day.between(window.after.moment.date(), window.end.date()),
        *_named(window),
    ]
    if before is not None:
        conditions += [moment <= before.moment, or_(moment < before.moment, key < before.key)]
    query = select(USAGE_EVENT).where(*conditions).order_by(moment.desc(), key.desc()).limit(limit)
    return [_entry(row) for row in connection.execute(query).mappings()]


def of_request(connection: Connection, request_id: str) -> LedgerEntry | None:
    """Return the usage event of a request, of whichever workspace, as soon as it is counted.

    The request's id names the millisecond of its admission, as its event's key does, so that few rows are looked at.
    """
    moment = ids.moment_of(request_id)
    if moment is None:
        return None
    columns = USAGE_EVENT.c
    after = moment + timedelta(milliseconds=1)
    conditions = (
        columns.day == moment.date(),
        columns.idempotency_key.between(ids.first_of(moment), ids.first_of(after)),
        columns.request_id == request_id,
        columns.kind == Kind.USAGE.value,
    )
    row = connection.execute(select(USAGE_EVENT).where(*conditions).limit(1)).mappings().one_or_none()
    return None if row is None else _entry(row)


def place_of(entry: LedgerEntry, order: Order) -> PageStart:
    """Return the place that the next page begins behind."""
    moment = entry.recorded_at if order is Order.RECORDED else entry.event.timestamp
    return PageStart(moment, entry.event.idempotency_key)


def days(connection: Connection, first: date, last: date) -> Iterator[LedgerEntry]:
    """Return every event of some UTC days, both inclusive, of all workspaces, by day, without holding them all."""
    columns = USAGE_EVENT.c
    query = select(USAGE_EVENT).where(columns.day.between(first, last)).order_by(columns.day, columns.idempotency_key)
    return map(_entry, connection.execute(query.execution_options(yield_per=1000)).mappings())


def _named(window: EventQuery) -> list[ColumnElement[bool]]:
    columns = USAGE_EVENT.c
    asked = (
        (columns.api_key_prefix, window.api_key_prefix),
        (columns.external_entity_id, window.external_entity_id),
        (columns.request_id, window.request_id),
    )
    return [column == wanted for column, wanted in asked if wanted is not None]


def _entry(row: RowMapping) -> LedgerEntry:
    return LedgerEntry(events.event_of(row), row["recorded_at"])
