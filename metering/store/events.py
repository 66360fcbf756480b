"""The ledger: one row for each usage event, by its key; and the numbers of those dropped as duplicates (contract 4)."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

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
    and_,
    case,
    false,
    func,
    or_,
    select,
    true,
    union_all,
)
from ulid import ULID

from runtime.database.engines import METADATA, UtcDateTime
from schemas.usage import Kind, Producer, RouteName, Tokens, UsageEvent

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
    Column("route", String, nullable=False, server_default=RouteName.CHAT_COMPLETIONS.value),
    Column("parent_groups", JSON, nullable=False, server_default="[]"),
    # The day first: PostgreSQL partitions by it. A key names its admission, so it never comes with two days.
    PrimaryKeyConstraint("day", "idempotency_key"),
    Index(None, "workspace_id", "timestamp", "idempotency_key"),
    Index(None, "workspace_id", "recorded_at", "idempotency_key"),
    Index(None, "instance", "sequence"),
    postgresql_partition_by="RANGE (day)",
)

METERING_DUPLICATE = Table(
    "metering_duplicate",
    METADATA,
    Column("instance", String, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("idempotency_key", String, nullable=False),
)
"""Numbers that were given to an event whose key the ledger already had under another number."""


@dataclass(frozen=True, slots=True)
class LedgerTally:
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


def find(connection: Connection, idempotency_key: str) -> UsageEvent | None:
    """Return the event of a key, None where the ledger has none. The key's own time says on which days to look."""
    try:
        minted = ULID.from_str(idempotency_key).datetime.date()
        days = [minted + timedelta(days=offset) for offset in (-1, 0, 1)]
    except (ValueError, OverflowError):  # it is none, or of a year that no date has
        return None
    query = select(USAGE_EVENT).where(USAGE_EVENT.c.day.in_(days), USAGE_EVENT.c.idempotency_key == idempotency_key)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else event_of(row)


def behind(connection: Connection, producer: Producer) -> list[UsageEvent]:
    """Return an instance's events whose numbers are above the producer's own, in their order."""
    columns = USAGE_EVENT.c
    later = select(USAGE_EVENT).where(columns.instance == producer.instance, columns.sequence > producer.sequence)
    return [event_of(row) for row in connection.execute(later.order_by(columns.sequence)).mappings()]


def within(marks: Mapping[str, int]) -> ColumnElement[bool]:
    """Tell of a row whether its number is at most its instance's mark; where there is no mark, it is not."""
    return USAGE_EVENT.c.sequence <= case({"": 0, **marks}, value=USAGE_EVENT.c.instance, else_=0)


def between(marks: Mapping[str, tuple[int, int]]) -> ColumnElement[bool]:
    """Tell of a row whether its number is above its instance's first mark and at most its second."""
    columns = USAGE_EVENT.c
    return or_(
        false(),
        *(
            and_(columns.instance == instance, columns.sequence > low, columns.sequence <= high)
            for instance, (low, high) in marks.items()
            if low < high
        ),
    )


def of_requests(request_ids: Collection[str]) -> ColumnElement[bool]:
    """Tell of a row whether it is of one of these requests."""
    return USAGE_EVENT.c.request_id.in_(request_ids)


def rows(from_day: date, to_day: date, which: ColumnElement[bool]) -> Select[Any]:
    """Query the ledger's rows of these days, both inclusive, for a reader that streams or joins them."""
    return select(USAGE_EVENT).where(USAGE_EVENT.c.day.between(from_day, to_day), which)


def usage(from_day: date, to_day: date, which: ColumnElement[bool], *names: str) -> Select[Any]:
    """Query columns of `rows`, by their names, without the corrections among them."""
    columns = USAGE_EVENT.c
    found = rows(from_day, to_day, which).where(columns.kind == Kind.USAGE.value)
    return found.with_only_columns(*(columns[name] for name in names))


def request_ids(connection: Connection, from_day: date, to_day: date, which: ColumnElement[bool]) -> list[str]:
    """Return the request ids of `rows`."""
    wanted = rows(from_day, to_day, which).with_only_columns(USAGE_EVENT.c.request_id)
    return list(connection.execute(wanted).scalars())


def keys(from_day: date, to_day: date, which: ColumnElement[bool]) -> Select[Any]:
    """Query the workspaces and keys of `rows`."""
    return rows(from_day, to_day, which).with_only_columns(USAGE_EVENT.c.workspace_id, USAGE_EVENT.c.idempotency_key)


def instances(connection: Connection, from_day: date, to_day: date) -> set[str]:
    """Return every producer instance that has events on these days."""
    wanted = rows(from_day, to_day, true()).with_only_columns(USAGE_EVENT.c.instance)
    return set(connection.execute(wanted.distinct()).scalars())


def tallies(
    connection: Connection, from_day: date, to_day: date, which: ColumnElement[bool] | None = None
) -> tuple[LedgerTally, ...]:
    """Sum the ledger (or `which` of its rows) per workspace and day, both days inclusive, in that order."""
    columns = USAGE_EVENT.c
    usages, corrections = columns.kind == Kind.USAGE.value, columns.kind == Kind.CORRECTION.value
    sums = [
        func.sum(case((condition, value), else_=0))
        for condition, value in (
            (usages, 1),
            (usages, columns.input_tokens),
            (usages, columns.output_tokens),
            (corrections, 1),
            (corrections, columns.input_tokens),
            (corrections, columns.output_tokens),
        )
    ]
    owner = (columns.workspace_id, columns.day)
    query = rows(from_day, to_day, true() if which is None else which).with_only_columns(*owner, *sums)
    found = connection.execute(query.group_by(*owner).order_by(*owner))
    return tuple(LedgerTally(row[0], row[1], *map(int, row[2:])) for row in found)


def gaps(
    connection: Connection, from_day: date, to_day: date, ends: Mapping[str, int] | None = None
) -> tuple[Gap, ...]:
    """Return the missing sequences of every instance that has events on these days, both inclusive.

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


def last_days(connection: Connection, instances: Collection[str]) -> dict[str, date]:
    """Return the day of each instance's highest number; an instance without an event is left out."""
    columns = USAGE_EVENT.c
    found = {}
    for instance in instances:
        newest = select(columns.day).where(columns.instance == instance).order_by(columns.sequence.desc()).limit(1)
        day = connection.execute(newest).scalar_one_or_none()
        if day is not None:
            found[instance] = day
    return found


def _gaps_between(connection: Connection, instance: str, first: int, last: int) -> Iterator[Gap]:
    numbers = union_all(
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


def event_of(row: RowMapping) -> UsageEvent:
    """Return the event that a whole row holds."""
    own = {name: value for name, value in row.items() if name in UsageEvent.model_fields}
    tokens = {name: row[name] for name in Tokens.model_fields}
    producer = {name: row[name] for name in Producer.model_fields}
    return UsageEvent(**own, tokens=Tokens(**tokens), producer=Producer(**producer))
