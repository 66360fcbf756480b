"""Decides what the list of events shows: the ledger's entries and the kept requests that are not in it, newest first.

A request that has an event is shown by its record until the ledger has it, and by its entry from then on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Connection

from control.store import requests
from control.store.groups import SqlGroups
from metering.store.pages import EventQuery, LedgerEntry, PageStart, newest, of_request
from runtime import ids
from schemas.monitoring.requests import RequestRecord
from schemas.usage import Kind

LOOKED_AT = 1000
"""Among how many kept requests those of one customer or key are looked for on a page."""


class Shown(StrEnum):
    """Which requests a person wishes to see."""

    ALL = "all"
    BILLED = "billed"
    """Those that have an event, also one that is not in the ledger yet."""
    NOT_BILLED = "not_billed"


class LivePlace(NamedTuple):
    """Where a page ended: the last entry of the ledger, and the last kept request, that it or one before it showed."""

    moment: datetime | None
    key: str
    request_id: str | None


@dataclass(frozen=True, slots=True)
class LiveRow:
    """One request: its entry of the ledger, or else the record of what became of it."""

    at: datetime
    external_entity_id: str | None
    """None: its group is no longer there."""
    entry: LedgerEntry | None = None
    record: RequestRecord | None = None


def rows(
    connection: Connection, window: EventQuery, after: LivePlace | None, limit: int, shown: Shown = Shown.ALL
) -> list[LiveRow]:
    """Return at most `limit` of the window's requests, the newest first, behind `after`."""
    before = None if after is None or after.moment is None else PageStart(after.moment, after.key)
    entries = [] if shown is Shown.NOT_BILLED else newest(connection, window, before, limit)
    counted = {entry.event.request_id for entry in entries if entry.event.kind is Kind.USAGE}
    known = _records(connection, window, None if after is None else after.request_id, limit, shown)
    records = [
        record
        for record in known
        if record.request_id not in counted
        and not (record.is_billed and of_request(connection, record.request_id) is not None)
    ]
    names = _names(connection, records)
    found = [LiveRow(entry.event.timestamp, entry.event.external_entity_id, entry=entry) for entry in entries]
    found += [LiveRow(record.at, names.get(record.group_id or ""), record=record) for record in records]
    return sorted(found, key=lambda row: row.at, reverse=True)[:limit]  # stable: each of the two keeps its own order


def place(rows: Sequence[LiveRow], after: LivePlace | None) -> LivePlace:
    """Return where a page that shows `rows` behind `after` ends."""
    moment, key, request_id = after or LivePlace(None, "", None)
    for row in rows:
        if row.entry is not None:
            moment, key = row.at, row.entry.event.idempotency_key
        elif row.record is not None:
            request_id = row.record.request_id
    return LivePlace(moment, key, request_id)


def _records(
    connection: Connection, window: EventQuery, before: str | None, limit: int, shown: Shown
) -> list[RequestRecord]:
    """Return the kept requests of the window; of one that has an event, whether or not the ledger has it."""
    end = ids.first_uuid7_of(window.end)
    group = None
    if window.external_entity_id is not None:
        group = SqlGroups(connection).external_id_owner(window.workspace_id, window.external_entity_id)
        if group is None:
            return []
    is_plain = group is None and window.api_key_prefix is None and shown is Shown.ALL
    found = requests.newest(
        connection,
        window.workspace_id,
        window.after.moment,
        limit if is_plain else LOOKED_AT,
        before=end if before is None else min(before, end),
    )
    return [
        record
        for record in found
        if (group is None or record.group_id == group)
        and (window.api_key_prefix is None or record.api_key_prefix == window.api_key_prefix)
        and (shown is Shown.ALL or record.is_billed is (shown is Shown.BILLED))
    ][:limit]


def _names(connection: Connection, records: Sequence[RequestRecord]) -> Mapping[str, str]:
    """Return the external ids of the records' groups."""
    chains = SqlGroups(connection).chains([record.group_id for record in records if record.group_id])
    return {chain[0].record.id: chain[0].record.external_entity_id for chain in chains}
