"""Queries of what processes told of themselves: minutes for a day, hours for 35 days (contract 6). Not money.

A minute is kept for each process that told it, under a key of its own, so that one told twice is kept once. An hour is
summed from its minutes once the latest may have come.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import zip_longest
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, tuple_

from control.store.monitoring.tables import PROCESS_STATUS, STATUS_CALLS, STATUS_LAGS
from runtime.database import statements
from schemas.monitoring.status import SECONDS, CallCounts, LatencyCounts, ProcessStatus, Stage

MINUTES_KEPT = timedelta(days=1)
HOURS_KEPT = timedelta(days=35)
PROCESSES_KEPT = timedelta(days=1)
"""How long a process is shown that tells no more."""
MOST_CALLS = 1_000_000
"""Rows of calls, each of one workspace at one proxy in one minute or at all in one hour; the oldest go first."""
MOST_PROCESSES = 1000

_LATE = timedelta(minutes=20)
"""When an hour is summed after its end: a process holds 10 minutes while Kafka is away."""
_HOUR = timedelta(hours=1)
_ALL = ""
"""In place of a process: all of them."""

_Lags = dict[datetime, dict[str, float]]
"""By the beginning of a period, the lags by stage."""


class Unit(StrEnum):
    """How long a period is."""

    MINUTE = "minute"
    HOUR = "hour"


class CallDimension(StrEnum):
    """What calls may be told apart by."""

    WORKSPACE = "workspace_id"
    GROUP = "group_id"
    SLUG = "slug"


class LagPoint(NamedTuple):
    """The greatest lag of a stage in one period: events of all processes together, or seconds (`SECONDS`)."""

    start: datetime
    stage: Stage
    lag: float


class CallPoint(NamedTuple):
    """The calls that ended in one period; `counts` names what they were told apart by, else an empty text."""

    start: datetime
    counts: CallCounts


def processes(connection: Connection) -> list[ProcessStatus]:
    """Return the newest of each process that told of itself within a day, by role; MOST_PROCESSES at most."""
    found = connection.execute(select(PROCESS_STATUS.c.record)).scalars()
    return sorted((ProcessStatus.model_validate(one) for one in found), key=lambda one: (one.role, one.process))


def lags(connection: Connection, unit: Unit, since: datetime) -> list[LagPoint]:
    """Return what each stage lagged in each period that begins at `since` or later, the oldest first."""
    return [
        LagPoint(start, Stage(stage), lag)
        for start, by_stage in sorted(_lags(connection, unit, since).items())
        for stage, lag in sorted(by_stage.items())
    ]


def calls(
    connection: Connection, unit: Unit, since: datetime, by: Sequence[CallDimension], workspace_id: str | None = None
) -> list[CallPoint]:
    """Return the calls that ended in each period that begins at `since` or later, the oldest first, told apart by `by`.

    `workspace_id` None: of all workspaces. What a period has of a key is one point.
    """
    sums: dict[tuple[datetime, str, str, str], CallCounts] = {}
    for start, one in _calls(connection, unit, since, workspace_id):
        blank = {part.value: "" for part in CallDimension if part not in by}
        kept = one.model_copy(update=blank)
        key = (start, kept.workspace_id, kept.group_id, kept.slug)
        sums[key] = _added(sums[key], kept) if key in sums else kept
    return [CallPoint(key[0], sums[key]) for key in sorted(sums)]


def keep(connection: Connection, records: Sequence[ProcessStatus]) -> None:
    """Keep what processes told; a minute that is kept already stays as it is."""
    engine = connection.dialect.name
    newest = {one.process: one for one in sorted(records, key=lambda one: one.at)}
    if newest:
        insert = statements.insert_into(engine, PROCESS_STATUS)
        changed = {name: insert.excluded[name] for name in ("at", "record")}
        is_newer = insert.excluded.at > PROCESS_STATUS.c.at
        rows = [
            {"process": one.process, "at": one.at, "record": one.model_dump(mode="json", exclude={"minute"})}
            for one in newest.values()
        ]
        connection.execute(insert.on_conflict_do_update(index_elements=["process"], set_=changed, where=is_newer), rows)
    for one in records:
        if (minute := one.minute) is not None:
            _insert(connection, STATUS_LAGS, [_lag_row(Unit.MINUTE, minute.start, one.process, minute.lags)])
            _insert(connection, STATUS_CALLS, _call_rows(Unit.MINUTE, minute.start, one.process, minute.calls))


def sum_hours(connection: Connection, now: datetime) -> None:
    """Sum the minutes of each hour that has ended, once; to be called at least once a day."""
    summed = _summed_hours(connection)
    begun = connection.execute(select(func.min(STATUS_LAGS.c.start)).where(STATUS_LAGS.c.unit == Unit.MINUTE)).scalar()
    start = now if begun is None else _hour_of(begun)
    while start + _HOUR + _LATE <= now:
        if start not in summed:
            _sum_hour(connection, start)
        start += _HOUR


def forget(connection: Connection, now: datetime, limit: int) -> int:
    """Remove at most `limit` rows of what is kept no longer; return how many went."""
    gone = 0
    for table in (STATUS_LAGS, STATUS_CALLS):
        for unit, kept in ((Unit.MINUTE, MINUTES_KEPT), (Unit.HOUR, HOURS_KEPT)):
            gone += _remove(connection, table, limit - gone, table.c.unit == unit, table.c.start < now - kept)
    return gone + _remove(connection, PROCESS_STATUS, limit - gone, PROCESS_STATUS.c.at < now - PROCESSES_KEPT)


def bound(connection: Connection, *, most_calls: int = MOST_CALLS, most_processes: int = MOST_PROCESSES) -> None:
    """Remove the oldest beyond what is kept of all."""
    for column, most in ((STATUS_CALLS.c.start, most_calls), (PROCESS_STATUS.c.at, most_processes)):
        last = connection.execute(select(column).order_by(column.desc()).offset(most).limit(1)).scalar()
        if last is not None:
            connection.execute(delete(column.table).where(column <= last))


def _remove(connection: Connection, table: Table, limit: int, *old: ColumnElement[bool]) -> int:
    key = list(table.primary_key.columns)
    return connection.execute(delete(table).where(tuple_(*key).in_(select(*key).where(*old).limit(limit)))).rowcount


def _sum_hour(connection: Connection, start: datetime) -> None:
    """Keep the sums of the minutes of one hour, if there are any."""
    found = _by_hour(_lags_of_minutes(connection, start, start + _HOUR))
    if start not in found:
        return
    sums: dict[tuple[str, ...], CallCounts] = {}
    for _, one in _rows(connection, Unit.MINUTE, start, start + _HOUR):
        key = (one.workspace_id, one.group_id, one.slug)
        sums[key] = _added(sums[key], one) if key in sums else one
    _insert(connection, STATUS_LAGS, [_lag_row(Unit.HOUR, start, _ALL, found[start])])
    _insert(connection, STATUS_CALLS, _call_rows(Unit.HOUR, start, _ALL, sums.values()))


def _lags(connection: Connection, unit: Unit, since: datetime) -> _Lags:
    if unit is Unit.MINUTE:
        return _lags_of_minutes(connection, since)
    columns = STATUS_LAGS.c
    query = select(columns.start, columns.lags).where(columns.unit == Unit.HOUR, columns.start >= since)
    summed: _Lags = {row.start: row.lags for row in connection.execute(query)}
    return _by_hour(_lags_of_minutes(connection, since)) | summed


def _lags_of_minutes(connection: Connection, since: datetime, until: datetime | None = None) -> _Lags:
    """Return the lags of all processes together: events add up."""
    columns = STATUS_LAGS.c
    query = select(columns.start, columns.lags).where(columns.unit == Unit.MINUTE, columns.start >= since)
    found: _Lags = {}
    for row in connection.execute(query if until is None else query.where(columns.start < until)):
        minute = found.setdefault(row.start, {})
        for stage, lag in row.lags.items():
            minute[stage] = max(lag, minute.get(stage, 0.0)) if stage in SECONDS else lag + minute.get(stage, 0.0)
    return found


def _by_hour(minutes: _Lags) -> _Lags:
    found: _Lags = {}
    for start, by_stage in minutes.items():
        hour = found.setdefault(_hour_of(start), {})
        for stage, lag in by_stage.items():
            hour[stage] = max(lag, hour.get(stage, 0.0))
    return found


def _calls(
    connection: Connection, unit: Unit, since: datetime, workspace_id: str | None
) -> Iterator[tuple[datetime, CallCounts]]:
    yield from _rows(connection, unit, since, None, workspace_id)
    if unit is Unit.HOUR:
        summed = _summed_hours(connection)
        for start, counts in _rows(connection, Unit.MINUTE, since, None, workspace_id):
            if (hour := _hour_of(start)) not in summed:
                yield hour, counts


def _rows(
    connection: Connection, unit: Unit, since: datetime, until: datetime | None, workspace_id: str | None = None
) -> Iterator[tuple[datetime, CallCounts]]:
    columns = STATUS_CALLS.c
    query = select(columns.start, columns.calls).where(columns.unit == unit, columns.start >= since)
    if until is not None:
        query = query.where(columns.start < until)
    if workspace_id is not None:
        query = query.where(columns.workspace_id == workspace_id)
    for row in connection.execute(query.execution_options(**statements.STREAMED)):
        for one in row.calls:
            yield row.start, CallCounts.model_validate(one)


def _summed_hours(connection: Connection) -> set[datetime]:
    return set(connection.execute(select(STATUS_LAGS.c.start).where(STATUS_LAGS.c.unit == Unit.HOUR)).scalars())


def _added(one: CallCounts, other: CallCounts) -> CallCounts:
    return one.model_copy(
        update={
            "outcomes": dict(Counter(one.outcomes) + Counter(other.outcomes)),
            "whole": _latencies(one.whole, other.whole),
            "first_byte": _latencies(one.first_byte, other.first_byte),
            "own": _latencies(one.own, other.own),
        }
    )


def _latencies(one: LatencyCounts, other: LatencyCounts) -> LatencyCounts:
    """Add two up; a release that has other bounds has other counts, and the longer ones are kept."""
    pairs = zip_longest(one.counts, other.counts, fillvalue=0)
    return LatencyCounts(counts=tuple(mine + theirs for mine, theirs in pairs), sum_s=one.sum_s + other.sum_s)


def _lag_row(unit: Unit, start: datetime, process: str, by_stage: Mapping[Any, float]) -> dict[str, Any]:
    return {"unit": unit.value, "start": start, "process": process, "lags": dict(by_stage)}


def _call_rows(unit: Unit, start: datetime, process: str, counts: Iterable[CallCounts]) -> list[dict[str, Any]]:
    """Return a row for each workspace."""
    by_workspace: defaultdict[str, list[Any]] = defaultdict(list)
    for one in counts:
        by_workspace[one.workspace_id].append(one.model_dump(mode="json"))
    return [
        {"unit": unit.value, "start": start, "workspace_id": workspace_id, "process": process, "calls": some}
        for workspace_id, some in by_workspace.items()
    ]


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statements.insert_into(connection.dialect.name, table).on_conflict_do_nothing(), rows)


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
