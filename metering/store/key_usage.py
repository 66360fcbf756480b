"""Adds what a batch's new events count to daily usage by key, with each key's last use."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import UTC, date, datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Insert, case, func, select
from ulid import ULID

from domain.days import day_of
from metering.core import sums
from metering.store.tables import KEY_DAILY
from runtime.database import statements
from schemas.spooled import AnyEvent
from schemas.usage import Kind


class _RowKey(NamedTuple):
    """A row's key, in the order of the table's: rows are locked in it, so that two workers never deadlock."""

    day: date
    lane: str
    group_id: str
    api_key_prefix: str
    model_slug: str
    priced_day: date


def add(connection: Connection, lane: str, new: Sequence[AnyEvent]) -> None:
    """Add `new`, events whose keys were new, to daily usage by key."""
    alike: dict[_RowKey, list[AnyEvent]] = defaultdict(list)
    for event in new:
        place = _RowKey(day_of(event), lane, event.group_id, event.api_key_prefix, event.model_slug, priced_day(event))
        alike[place].append(event)
    if not alike:
        return
    rows = [{**place._asdict(), **_figures(events)} for place, events in sorted(alike.items())]
    engine = connection.dialect.name
    connection.execute(_adding(engine), statements.columns_of(rows) if engine == "postgresql" else rows)


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


def _figures(events: Sequence[AnyEvent]) -> dict[str, Any]:
    used: list[datetime] = [event.timestamp for event in events if event.kind is Kind.USAGE]
    return {
        "workspace_id": events[0].workspace_id,
        "external_entity_id": events[0].external_entity_id,
        **sums.daily_of(events)._asdict(),
        "last_used_at": max(used, default=None),
    }


@cache
def _adding(engine: str) -> Insert:
    arrays = engine == "postgresql"
    statement = statements.insert_arrays(KEY_DAILY) if arrays else statements.insert_into(engine, KEY_DAILY)
    given, held = statement.excluded, KEY_DAILY.c
    later = held.last_used_at.is_(None) | (given.last_used_at > held.last_used_at)
    return statement.on_conflict_do_update(
        index_elements=list(KEY_DAILY.primary_key.columns),
        set_={name: held[name] + given[name] for name in sums.DailyIncrement._fields}
        | {"last_used_at": case((later, given.last_used_at), else_=held.last_used_at)},
    )
