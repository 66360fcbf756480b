"""The ledger as the dispatcher's intake asks it: which days it has, and which events it holds."""

from collections.abc import Collection, Sequence
from datetime import date

from sqlalchemy import Connection

from domain import days
from domain.ledger_days import Days
from domain.sources import EventBatch
from metering.store import day_partitions, events, positions
from schemas.spooled import AnyEvent


class SqlLedgerView:
    """Implements webhooks' port `LedgerView` (`webhooks.closed_days`) for a ledger in the same database."""

    def days(self, connection: Connection) -> Days:
        """Return the days that it has."""
        return day_partitions.open_days(connection)

    def counted(self, connection: Connection, batch: EventBatch, events: Sequence[AnyEvent]) -> Collection[str] | None:
        """Return the keys of those `events` of `batch` that it holds; None until metering is past the batch."""
        at = positions.position(connection, *batch.source)
        if at is None or at < batch.next_offset:
            return None
        wanted = {event.idempotency_key for event in events}
        found = [self._of(connection, day, wanted) for day in {days.day_of(event) for event in events}]
        return {key for keys in found for key in keys}

    def _of(self, connection: Connection, day: date, wanted: Collection[str]) -> Sequence[str]:
        key = events.USAGE_EVENT.c.idempotency_key
        query = events.rows(day, day, key.in_(wanted)).with_only_columns(key)
        return connection.execute(query).scalars().all()
