"""The ledger with a span of each usage event that it counts, where traces are on."""

import time
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection

from domain.sources import EventBatch
from metering.core.sums import Totals
from metering.store.transaction import SqlLedger
from runtime.database.engines import Database
from runtime.telemetry.traces import SpanKind, Traces


class TracedLedger(SqlLedger):
    """A ledger that tells of what it counts; an event that comes again is told of again."""

    def __init__(self, database: Database, now_of: Callable[[Connection], datetime], traces: Traces) -> None:
        super().__init__(database, now_of)
        self._traces = traces

    async def apply(self, batch: EventBatch) -> Totals:
        """Count, then add the spans."""
        began_s = time.time()
        totals = await super().apply(batch)
        parents = [event.traceparent for event in batch.events if event.traceparent]
        self._traces.add("ledger", SpanKind.CONSUMER, parents, (began_s, time.time()), {"tollgate.lane": batch.lane})
        return totals


def ledger(database: Database, now_of: Callable[[Connection], datetime], traces: Traces | None) -> SqlLedger:
    """Return the ledger of a process."""
    return SqlLedger(database, now_of) if traces is None else TracedLedger(database, now_of, traces)
