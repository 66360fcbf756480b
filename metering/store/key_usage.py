"""Adds what a batch's new events count to daily usage by key, with each key's last use."""

from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Insert, case, func, select
from ulid import ULID

from domain.days import day_of
from metering.core import sums
from metering.store.tables import KEY_DAILY
from runtime.database import statements
from schemas.spooled import AnyEvent
from schemas.usage import Kind


def add(connection: Connection, lane: str, new: Sequence[AnyEvent]) -> None:
    """Add `new`, events whose keys were new, to daily usage by key."""
    added: dict[tuple[Any, ...], list[int]] = {}
    last: dict[tuple[Any, ...], AnyEvent] = {}
    used: dict[tuple[Any, ...], datetime] = {}
    for event in new:
        place = (day_of(event), lane, event.group_id, event.api_key_prefix, event.model_slug, priced_day(event))
        sums.add_daily(added.setdefault(place, [0] * len(sums.DailyIncrement._fields)), event)
        last[place] = event
        if event.kind is Kind.USAGE:
            used[place] = max(used.get(place, event.timestamp), event.timestamp)
    if not added:
        return
    rows = [  # locked in this order, that of the table's key, so that two workers never deadlock
        (*place, last[place].workspace_id, last[place].external_entity_id, *figures, used.get(place))
        for place, figures in sorted(added.items())
    ]
    engine = connection.dialect.name
    connection.execute(_adding(engine), statements.given(engine, KEY_DAILY, rows))


def last_used(connection: Connection, group_id: str, prefixes: Collection[str]) -> dict[str, datetime]:
    """Return when the last counted request of each of these keys of a group was admitted; without those never used."""
    columns = KEY_DAILY.c
    newest: dict[str, datetime] = {}
    for some in statements.chunks(sorted(prefixes)):
        query = select(columns.api_key_prefix, func.max(columns.last_used_at)).where(
            columns.group_id == group_id, columns.api_key_prefix.in_(some), columns.last_used_at.is_not(None)
        )
        newest |= {row[0]: row[1] for row in connection.execute(query.group_by(columns.api_key_prefix))}
    return newest


def priced_day(event: AnyEvent) -> date:
    """Return the UTC day whose price the event takes: a correction takes that of the event that it corrects.

    That event's key is a ULID of its admission, so it need not be read.
    """
    if event.kind is Kind.CORRECTION and event.corrects is not None:
        try:
            return ULID.from_str(event.corrects).datetime.astimezone(UTC).date()
        except (ValueError, OverflowError):  # a key of another maker's
            pass
    return day_of(event)


@cache
def _adding(engine: str) -> Insert:
    statement = statements.insert_all(engine, KEY_DAILY)
    given, held = statement.excluded, KEY_DAILY.c
    later = held.last_used_at.is_(None) | (given.last_used_at > held.last_used_at)
    return statement.on_conflict_do_update(
        index_elements=list(KEY_DAILY.primary_key.columns),
        set_={name: held[name] + given[name] for name in sums.DailyIncrement._fields}
        | {"last_used_at": case((later, given.last_used_at), else_=held.last_used_at)},
    )
