"""How usage events get into the ledger: quickly where all are new, which is nearly always, one by one where not.

Never takes a key twice, and never loses the number of an event that it drops as a duplicate.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import Connection, select, tuple_
from sqlalchemy.exc import IntegrityError

from domain import days, ledger_days
from metering.store import day_partitions
from metering.store.events import METERING_DUPLICATE, USAGE_EVENT
from runtime.database import copy as bulk
from runtime.database import sqlite_rows, statements
from schemas.spooled import AnyEvent

Key = tuple[date, str]
"""What is unique in the ledger: the event's day and its idempotency key."""

_NO_PARTITION = "23514"  # a check violation: the ledger has no other check

_COLUMNS = [column.name for column in USAGE_EVENT.columns]


def record(connection: Connection, events: Sequence[AnyEvent], recorded_at: datetime) -> list[AnyEvent]:
    """Insert `events`; return those whose key was new. Of one key's events within the batch the first is taken.

    Raise DayClosedError where one's day has no place (`metering.store.day_partitions`); then none of them is in.
    """
    firsts: dict[Key, AnyEvent] = {}
    for event in events:
        firsts.setdefault((days.day_of(event), event.idempotency_key), event)
    day_partitions.check(connection, {day for day, _ in firsts})
    try:
        if not firsts or _insert_all(connection, firsts, recorded_at):
            new = list(firsts.values())
        else:
            inserted = _insert_some(connection, firsts, recorded_at)
            new = [event for key, event in firsts.items() if key in inserted]
    except IntegrityError as error:
        if getattr(error.orig, "sqlstate", None) == _NO_PARTITION:
            raise ledger_days.DayClosedError(str(error.orig)) from error
        raise
    if len(new) < len(events):
        taken = {id(event) for event in new}
        _note_duplicates(connection, [event for event in events if id(event) not in taken])
    return new


def _insert_all(connection: Connection, events: Mapping[Key, AnyEvent], recorded_at: datetime) -> bool:
    """Insert `events`, or none of them where a key is already there.

    An INSERT with RETURNING costs SQLite twice and PostgreSQL many times as much, and nearly every batch is all new.
    """
    if connection.dialect.name == "postgresql":
        return bulk.copy(connection, USAGE_EVENT, _copied(events, recorded_at))
    return sqlite_rows.insert(connection, USAGE_EVENT, list(_stored(events, recorded_at)))


def _insert_some(connection: Connection, events: Mapping[Key, AnyEvent], recorded_at: datetime) -> set[Key]:
    rows = (
        _row(
            event,
            day=day,
            timestamp=event.timestamp,
            recorded_at=recorded_at,
            groups=(event.charged_groups, event.parent_groups),
            metadata=event.request_metadata,
        )
        for (day, _), event in events.items()
    )
    statement = statements.insert_into(connection.dialect.name, USAGE_EVENT).on_conflict_do_nothing()
    inserted = connection.execute(
        statement.returning(USAGE_EVENT.c.day, USAGE_EVENT.c.idempotency_key),
        [dict(zip(_COLUMNS, row, strict=True)) for row in rows],
    )
    return {(row.day, row.idempotency_key) for row in inserted}


def _note_duplicates(connection: Connection, dropped: Sequence[AnyEvent]) -> None:
    """Keep the numbers that a dropped event does not share with the one the ledger has: they are no gap."""
    columns = USAGE_EVENT.c
    kept: dict[Key, tuple[str, int]] = {}
    for some in statements.chunks(list({(days.day_of(event), event.idempotency_key) for event in dropped})):
        query = select(columns.day, columns.idempotency_key, columns.instance, columns.sequence)
        for row in connection.execute(query.where(tuple_(columns.day, columns.idempotency_key).in_(some))):
            kept[row.day, row.idempotency_key] = (row.instance, row.sequence)
    others = [
        {"instance": event.producer.instance, "sequence": event.producer.sequence, "idempotency_key": key[1]}
        for event in dropped
        if kept[key := (days.day_of(event), event.idempotency_key)]
        != (event.producer.instance, event.producer.sequence)
    ]
    if others:
        connection.execute(
            statements.insert_into(connection.dialect.name, METERING_DUPLICATE).on_conflict_do_nothing(), others
        )


def _copied(events: Mapping[Key, AnyEvent], recorded_at: datetime) -> Iterator[tuple[Any, ...]]:
    """Return the rows as PostgreSQL's COPY takes them: JSON as text, the rest as it is."""
    groups = cache(json.dumps)
    for (day, _), event in events.items():
        metadata = event.request_metadata
        yield _row(
            event,
            day=day,
            timestamp=event.timestamp,
            recorded_at=recorded_at,
            groups=(groups(event.charged_groups), groups(event.parent_groups)),
            metadata=None if metadata is None else msgspec.json.encode(metadata).decode(),
        )


def _stored(events: Mapping[Key, AnyEvent], recorded_at: datetime) -> Iterator[tuple[Any, ...]]:
    """Return the rows as SQLite keeps them; what repeats within a batch is turned only once."""
    store_day, store_groups = cache(date.isoformat), cache(sqlite_rows.text)
    stored_at = sqlite_rows.moment(recorded_at)
    for (day, _), event in events.items():
        yield _row(
            event,
            day=store_day(day),
            timestamp=sqlite_rows.moment(event.timestamp),
            recorded_at=stored_at,
            groups=(store_groups(event.charged_groups), store_groups(event.parent_groups)),
            metadata=sqlite_rows.text(event.request_metadata),
        )


def _row(
    event: AnyEvent, *, day: Any, timestamp: Any, recorded_at: Any, groups: tuple[Any, Any], metadata: Any
) -> tuple[Any, ...]:
    """Return an event's values in the order of the table's columns."""
    tokens, producer = event.tokens, event.producer
    charged, parents = groups
    return (
        day,
        event.idempotency_key,
        event.request_id,
        timestamp,
        recorded_at,
        event.workspace_id,
        event.group_id,
        charged,
        event.external_entity_id,
        event.api_key_prefix,
        event.model_slug,
        metadata,
        tokens.input_tokens,
        tokens.output_tokens,
        tokens.cached_input_tokens,
        event.usage_source.value,
        event.outcome.value,
        event.kind.value,
        event.corrects,
        event.reason,
        event.stream,
        event.latency_ms,
        event.first_byte_ms,
        producer.instance,
        producer.sequence,
        event.route,
        parents,
    )
