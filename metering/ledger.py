"""The ledger: one row for each usage event, by its key; and the numbers of those dropped as duplicates (spec 4).

Never changes or removes a row, and never refuses an event for its size: that would stop its partition for good.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Date,
    Index,
    PrimaryKeyConstraint,
    RowMapping,
    Select,
    String,
    Table,
    case,
    func,
    select,
    true,
    tuple_,
    union,
)
from sqlalchemy.dialects import sqlite
from ulid import ULID

from metering.core import rollup
from runtime import statements
from runtime.database import METADATA, UtcDateTime
from schemas.usage import Kind, Producer, Tokens, UsageEvent

USAGE_EVENT = Table(
    "usage_event",
    METADATA,
    Column("day", Date, nullable=False),
    Column("idempotency_key", String, nullable=False),
    Column("request_id", String, nullable=False),
    Column("timestamp", UtcDateTime, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
    Column("workspace_id", String, nullable=False),
    Column("group_id", String, nullable=False),
    Column("charged_groups", JSON, nullable=False),
    Column("external_entity_id", String, nullable=False),
    Column("api_key_prefix", String, nullable=False),
    Column("model_slug", String, nullable=False),
    Column("request_metadata", JSON(none_as_null=True)),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cached_input_tokens", BigInteger, nullable=False),
    Column("usage_source", String, nullable=False),
    Column("outcome", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("corrects", String),
    Column("reason", String),
    Column("stream", Boolean, nullable=False),
    Column("latency_ms", BigInteger),
    Column("first_byte_ms", BigInteger),
    Column("instance", String, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    # The day first: PostgreSQL partitions by it. A key names its admission, so it never comes with two days.
    PrimaryKeyConstraint("day", "idempotency_key"),
    Index(None, "workspace_id", "timestamp", "idempotency_key"),
    Index(None, "workspace_id", "recorded_at", "idempotency_key"),
    Index(None, "instance", "sequence"),
)

METERING_DUPLICATE = Table(
    "metering_duplicate",
    METADATA,
    Column("instance", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("idempotency_key", String, nullable=False),
)
"""Numbers that were given to an event whose key the ledger already had under another number."""

Item = TypeVar("Item")
Key = tuple[date, str]
"""What is unique in the ledger: the event's day and its idempotency key."""

_COLUMNS = [column.name for column in USAGE_EVENT.columns]
_SQLITE = sqlite.dialect(paramstyle="qmark")
_INSERT = str(sqlite.insert(USAGE_EVENT).on_conflict_do_nothing().compile(dialect=_SQLITE, column_keys=_COLUMNS))


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over one workspace and UTC day; the corrected tokens are signed and in no other figure."""

    workspace_id: str
    day: date
    requests: int
    input_tokens: int
    output_tokens: int
    corrections: int
    corrected_input_tokens: int
    corrected_output_tokens: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences of one producer instance that never came; both ends inclusive."""

    instance: str
    first: int
    last: int


def record(connection: Connection, events: Sequence[UsageEvent], recorded_at: datetime) -> list[UsageEvent]:
    """Insert `events`; give those whose key was new. Of one key's events within the batch the first is taken."""
    firsts: dict[Key, UsageEvent] = {}
    for event in events:
        firsts.setdefault((rollup.day_of(event), event.idempotency_key), event)
    if not firsts or _insert_all(connection, firsts, recorded_at):
        new = list(firsts.values())
    else:
        inserted = _insert_some(connection, firsts, recorded_at)
        new = [event for key, event in firsts.items() if key in inserted]
    if len(new) < len(events):
        taken = {id(event) for event in new}
        _note_duplicates(connection, [event for event in events if id(event) not in taken])
    return new


def _insert_all(connection: Connection, events: Mapping[Key, UsageEvent], recorded_at: datetime) -> bool:
    """Insert `events`, or none of them where a key is already there.

    The driver's own executemany costs half of an INSERT with RETURNING, and nearly every batch is all new.
    """
    if connection.dialect.name != "sqlite":
        return False
    rows = list(_stored(events, recorded_at))
    with connection.begin_nested() as attempt:
        if connection.exec_driver_sql(_INSERT, rows).rowcount == len(rows):
            return True
        attempt.rollback()
    return False


def _insert_some(connection: Connection, events: Mapping[Key, UsageEvent], recorded_at: datetime) -> set[Key]:
    rows = (
        _row(
            event,
            day=day,
            timestamp=event.timestamp,
            recorded_at=recorded_at,
            charged_groups=event.charged_groups,
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


def _note_duplicates(connection: Connection, dropped: Sequence[UsageEvent]) -> None:
    """Keep the numbers that a dropped event does not share with the one the ledger has: they are no gap."""
    columns = USAGE_EVENT.c
    kept: dict[Key, tuple[str, int]] = {}
    for some in statements.chunks(list({(rollup.day_of(event), event.idempotency_key) for event in dropped})):
        query = select(columns.day, columns.idempotency_key, columns.instance, columns.sequence)
        for row in connection.execute(query.where(tuple_(columns.day, columns.idempotency_key).in_(some))):
            kept[row.day, row.idempotency_key] = (row.instance, row.sequence)
    others = [
        {"instance": event.producer.instance, "sequence": event.producer.sequence, "idempotency_key": key[1]}
        for event in dropped
        if kept[key := (rollup.day_of(event), event.idempotency_key)]
        != (event.producer.instance, event.producer.sequence)
    ]
    if others:
        connection.execute(
            statements.insert_into(connection.dialect.name, METERING_DUPLICATE).on_conflict_do_nothing(), others
        )


def find(connection: Connection, idempotency_key: str) -> UsageEvent | None:
    """Give the event of a key, None where the ledger has none. The key's own time says on which days to look."""
    try:
        minted = ULID.from_str(idempotency_key).datetime.date()
    except ValueError:
        return None
    days = [minted + timedelta(days=offset) for offset in (-1, 0, 1)]
    query = select(USAGE_EVENT).where(USAGE_EVENT.c.day.in_(days), USAGE_EVENT.c.idempotency_key == idempotency_key)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _event(row)


def within(marks: Mapping[str, int]) -> ColumnElement[bool]:
    """Tell of a row whether its number is at most its instance's mark; where there is no mark, it is not."""
    return USAGE_EVENT.c.sequence <= case({"": 0, **marks}, value=USAGE_EVENT.c.instance, else_=0)


def rows(from_day: date, to_day: date, which: ColumnElement[bool]) -> Select[Any]:
    """Query the ledger's rows of these days, both inclusive, for a reader that streams or joins them."""
    return select(USAGE_EVENT).where(USAGE_EVENT.c.day.between(from_day, to_day), which)


def tallies(
    connection: Connection, from_day: date, to_day: date, which: ColumnElement[bool] | None = None
) -> tuple[Tally, ...]:
    """Sum the ledger (or `which` of its rows) per workspace and day, both days inclusive, in that order."""
    columns = USAGE_EVENT.c
    usage, correction = columns.kind == Kind.USAGE.value, columns.kind == Kind.CORRECTION.value
    sums = [
        func.sum(case((condition, value), else_=0))
        for condition, value in (
            (usage, 1),
            (usage, columns.input_tokens),
            (usage, columns.output_tokens),
            (correction, 1),
            (correction, columns.input_tokens),
            (correction, columns.output_tokens),
        )
    ]
    owner = (columns.workspace_id, columns.day)
    query = rows(from_day, to_day, true() if which is None else which).with_only_columns(*owner, *sums)
    found = connection.execute(query.group_by(*owner).order_by(*owner))
    return tuple(Tally(row[0], row[1], *map(int, row[2:])) for row in found)


def gaps(
    connection: Connection, from_day: date, to_day: date, ends: Mapping[str, int] | None = None
) -> tuple[Gap, ...]:
    """Give the missing sequences of every instance that has events on these days, both inclusive.

    Looks from the last number before the days' first one (0 where there is none) up to the days' last one, or to the
    instance's of `ends`; numbers of dropped duplicates, and of events of other days, are no gap.
    """
    columns = USAGE_EVENT.c
    bounds = (
        select(columns.instance, func.min(columns.sequence), func.max(columns.sequence))
        .where(columns.day.between(from_day, to_day))
        .group_by(columns.instance)
        .order_by(columns.instance)
    )
    spans = {instance: (end, end) for instance, end in (ends or {}).items() if end}
    for instance, first, last in connection.execute(bounds):
        spans[instance] = (first, max(last, spans.get(instance, (0, 0))[1]))
    return tuple(gap for instance in sorted(spans) for gap in _gaps_between(connection, instance, *spans[instance]))


def _gaps_between(connection: Connection, instance: str, first: int, last: int) -> Iterator[Gap]:
    numbers = union(
        *(
            select(table.c.sequence).where(table.c.instance == instance, table.c.sequence <= last)
            for table in (USAGE_EVENT, METERING_DUPLICATE)
        )
    ).subquery()
    below = connection.execute(
        select(func.coalesce(func.max(numbers.c.sequence), 0)).where(numbers.c.sequence < first)
    ).scalar_one()
    before = func.lag(numbers.c.sequence, 1, below).over(order_by=numbers.c.sequence).label("before")
    steps = select(numbers.c.sequence, before).where(numbers.c.sequence > below).subquery()
    jumps = select(steps.c.before, steps.c.sequence).where(steps.c.sequence - steps.c.before > 1)
    for previous, following in connection.execute(jumps.order_by(steps.c.sequence)):
        yield Gap(instance, previous + 1, following - 1)
    highest = connection.execute(select(func.coalesce(func.max(numbers.c.sequence), 0))).scalar_one()
    if highest < last:
        yield Gap(instance, highest + 1, last)


def _stored(events: Mapping[Key, UsageEvent], recorded_at: datetime) -> Iterator[tuple[Any, ...]]:
    """Give the rows as SQLite keeps them; what repeats within a batch is turned only once."""
    columns = USAGE_EVENT.c
    store_day, store_groups = cache(_storing(columns.day)), cache(_storing(columns.charged_groups))
    store_moment, store_metadata = _storing(columns.timestamp), _storing(columns.request_metadata)
    stored_at = store_moment(recorded_at)
    for (day, _), event in events.items():
        yield _row(
            event,
            day=store_day(day),
            timestamp=store_moment(event.timestamp),
            recorded_at=stored_at,
            charged_groups=store_groups(event.charged_groups),
            metadata=store_metadata(event.request_metadata),
        )


def _storing(column: Column[Any]) -> Callable[[Any], Any]:
    process = column.type.dialect_impl(_SQLITE).bind_processor(_SQLITE)
    if process is None:
        raise TypeError(f"{column.name} is stored as it is")
    return process


def _row(
    event: UsageEvent, *, day: Any, timestamp: Any, recorded_at: Any, charged_groups: Any, metadata: Any
) -> tuple[Any, ...]:
    """Give an event's values in the order of the table's columns."""
    tokens, producer = event.tokens, event.producer
    return (
        day,
        event.idempotency_key,
        event.request_id,
        timestamp,
        recorded_at,
        event.workspace_id,
        event.group_id,
        charged_groups,
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
    )


def _event(row: RowMapping) -> UsageEvent:
    own = {name: value for name, value in row.items() if name in UsageEvent.model_fields}
    tokens = {name: row[name] for name in Tokens.model_fields}
    producer = {name: row[name] for name in Producer.model_fields}
    return UsageEvent(**own, tokens=Tokens(**tokens), producer=Producer(**producer))
