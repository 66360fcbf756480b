"""Queries of the requests that were refused or failed, kept for a day, and what became of any one (contract 2.5)."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, select

from control.store.tables import REQUEST_POSITION, REQUEST_RECORD
from metering.store import pages as ledger
from metering.store.pages import LedgerEntry
from runtime import ids
from runtime.database import positions, statements
from schemas.monitoring.requests import RequestRecord
from webhooks.store import pages as deliveries
from webhooks.store.pages import Listed

KEPT = timedelta(hours=24)
MOST, MOST_OF_WORKSPACE = 1_000_000, 100_000
"""How many are kept of all workspaces, and of one; the oldest go first."""

_COLUMNS = REQUEST_RECORD.c


class RequestStory(NamedTuple):
    """What became of one request; at least one of its record and its event is there."""

    workspace_id: str | None
    """None: it belongs to none, so it is the operator's to find."""
    record: RequestRecord | None
    entry: LedgerEntry | None
    delivery: Listed | None


class RequestTally(NamedTuple):
    """How many requests of one model and group were refused or failed; None: it was not known of them."""

    model_slug: str | None
    group_id: str | None
    requests: int


def tallies(connection: Connection, workspace_id: str, since: datetime) -> list[RequestTally]:
    """Return how many of the workspace's kept requests there are from `since` on, by model and group."""
    cut = [_COLUMNS.record[name].as_string() for name in ("modelSlug", "groupId")]  # as JSON names them
    query = select(*cut, func.count()).where(*_from(workspace_id, since)).group_by(*cut)
    return [RequestTally._make(row) for row in connection.execute(query)]


def newest(
    connection: Connection, workspace_id: str | None, since: datetime, limit: int, *, before: str | None = None
) -> list[RequestRecord]:
    """Return at most `limit` kept requests of a workspace, or of all, from `since` on, the newest first.

    `before`: those of a lower id alone.
    """
    conditions = _from(workspace_id, since) + ([] if before is None else [_COLUMNS.request_id < before])
    query = select(_COLUMNS.record).where(*conditions).order_by(_COLUMNS.request_id.desc())
    return [RequestRecord.model_validate(record) for record in connection.execute(query.limit(limit)).scalars()]


def story(connection: Connection, request_id: str) -> RequestStory | None:
    """Return what is known of a request, of whichever workspace; one day is searched, the id's own."""
    record, entry = find(connection, request_id), ledger.of_request(connection, request_id)
    if record is None and entry is None:
        return None
    if entry is None:
        return RequestStory(record.workspace_id if record else None, record, None, None)
    event = entry.event
    delivery = deliveries.of_event(connection, event.workspace_id, event.idempotency_key, event.timestamp.date())
    return RequestStory(event.workspace_id, record, entry, delivery)


def add(connection: Connection, records: Sequence[RequestRecord]) -> None:
    """Keep some; one that is kept already stays as it is."""
    if records:
        rows = [
            {
                "request_id": record.request_id,
                "workspace_id": record.workspace_id or "",
                "record": record.model_dump(mode="json"),
            }
            for record in records
        ]
        connection.execute(
            statements.insert_into(connection.dialect.name, REQUEST_RECORD).on_conflict_do_nothing(), rows
        )


def find(connection: Connection, request_id: str) -> RequestRecord | None:
    """Return one, of whichever workspace."""
    query = select(_COLUMNS.record).where(_COLUMNS.request_id == request_id)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else RequestRecord.model_validate(found)


def forget(connection: Connection, now: datetime, limit: int) -> int:
    """Remove at most `limit` of those that are older than a day; return how many went."""
    old = select(_COLUMNS.request_id).where(_COLUMNS.request_id < ids.first_uuid7_of(now - KEPT))
    old = old.order_by(_COLUMNS.request_id).limit(limit)
    return connection.execute(delete(REQUEST_RECORD).where(_COLUMNS.request_id.in_(old))).rowcount


def bound(connection: Connection, *, most: int = MOST, most_of_workspace: int = MOST_OF_WORKSPACE) -> None:
    """Remove the oldest beyond what is kept of one workspace and of all."""
    counted = select(_COLUMNS.workspace_id, func.count()).group_by(_COLUMNS.workspace_id)
    counts: dict[str, int] = {row[0]: row[1] for row in connection.execute(counted)}
    for workspace_id, count in counts.items():
        if count > most_of_workspace:
            own = _COLUMNS.workspace_id == workspace_id
            kept = select(_COLUMNS.request_id).where(own).order_by(_COLUMNS.request_id.desc())
            last = connection.execute(kept.offset(most_of_workspace).limit(1)).scalar_one()
            connection.execute(delete(REQUEST_RECORD).where(own, _COLUMNS.request_id <= last))
    if sum(min(count, most_of_workspace) for count in counts.values()) > most:
        newest = select(_COLUMNS.request_id).order_by(_COLUMNS.request_id.desc()).offset(most).limit(1)
        last = connection.execute(newest).scalar_one()
        connection.execute(delete(REQUEST_RECORD).where(_COLUMNS.request_id <= last))


def _from(workspace_id: str | None, since: datetime) -> list[ColumnElement[bool]]:
    own = [] if workspace_id is None else [_COLUMNS.workspace_id == workspace_id]
    return [*own, _COLUMNS.request_id >= ids.first_uuid7_of(since)]


def taken(connection: Connection, topic: str) -> Mapping[int, int]:
    """Return how far each partition of the topic has been taken: its next offset."""
    columns = REQUEST_POSITION.c
    query = select(columns.partition, columns.next_offset).where(columns.topic == topic)
    return {row.partition: row.next_offset for row in connection.execute(query)}


def move(connection: Connection, topic: str, partition: int, at: int | None, next_offset: int) -> bool:
    """Move a partition's position on from `at`; False where another process has moved it."""
    return positions.move(connection, REQUEST_POSITION, (topic, partition), at, next_offset=next_offset)
