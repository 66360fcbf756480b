"""Removes what metering keeps no longer, beside the counting (contract 4: "Kept").

A clock that is far ahead removes no more: on PostgreSQL its own clock says what has expired, on SQLite what was
counted last, and the time since.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from datetime import date
from functools import partial

from sqlalchemy import Connection

from metering.store import retention
from runtime.clock import BelievedClock, Clock, Steady
from runtime.database import engines as databases
from runtime.database import steps
from runtime.database.engines import Database
from runtime.outage import Outage, Pause

EVERY_S = 600.0

_log = logging.getLogger(__name__)


class LedgerRetention:
    """Runs beside the counting, in each of its processes: what one removes the others find gone."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        ledger_days: int,
        spools: Collection[str] = (),
        steady: Steady = time.monotonic,
        pause: Pause = asyncio.sleep,
    ) -> None:
        """`spools` are the topics of those spools that exist; their positions stay."""
        self._database = database
        self._ledger_days = ledger_days
        self._spools = spools
        self._believed = BelievedClock(clock, steady, what="what was counted")
        self._pause = pause

    async def run(self) -> None:
        """Remove what has expired every 10 minutes, for ever."""
        await Outage("metering's retention", _log, self._pause).repeat(EVERY_S, self.remove_all)

    async def remove_all(self) -> None:
        """Remove all that has expired by now."""
        today = await self._database.read(self._today)
        removed = {}
        for name, step in retention.steps(today, self._ledger_days, self._spools).items():
            removed[name] = await steps.run_all(self._database, step, retention.STEP, self._pause)
        if any(removed.values()):
            _log.info(
                "removed what has expired: %s", ", ".join(f"{count} {name}" for name, count in removed.items() if count)
            )

    def _today(self, connection: Connection) -> date:
        newest = partial(retention.newest, connection)
        return databases.now(connection, lambda: self._believed.now(newest)).date()
