"""Removes what control keeps no longer: the audit log beyond its days, corrections beyond the ledger's and, embedded,
the configuration's old changes.

Ages are counted from a week beyond the newest entry at most.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from control.store import audit, corrections, published, requests
from control.store.monitoring import reconciliations, status
from runtime.clock import BELIEVED, Clock
from runtime.config import log as config_log
from runtime.database import steps
from runtime.database.engines import Database
from runtime.outage import Outage, Pause

EVERY_S = 600.0
STEP = 1000
"""Entries that one transaction removes."""

_LATE = timedelta(days=7)
"""How much longer than the ledger's days corrections are kept: a ledger may be late in closing one."""

_PUBLISHED = partial(published.read, name=published.CORRECTIONS)

_log = logging.getLogger(__name__)


class Retention:
    """Runs beside the management API, in each of its processes: what one removes the others find gone."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        audit_days: int,
        ledger_days: int,
        taken: Callable[[Connection], int] = _PUBLISHED,
        relayed: Callable[[], int] | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        """`relayed` returns up to which version every reader of the changes has them; None: the relay removes them.

        `taken` returns up to which sequence every reader of the corrections has them.
        """
        self._database = database
        self._clock = clock
        self._keep = timedelta(days=audit_days)
        self._keep_corrections = timedelta(days=ledger_days) + _LATE
        self._taken = taken
        self._relayed = relayed
        self._pause = pause

    async def run(self) -> None:
        """Remove what has expired every 10 minutes, for ever."""
        await Outage("control's retention", _log, self._pause).repeat(EVERY_S, self.remove_all)

    async def remove_all(self) -> None:
        """Remove all that has expired by now."""
        now = self._clock()
        await self._all(partial(audit.forget, now=now, keep=self._keep, limit=STEP), STEP)
        await self._all(partial(requests.forget, now=now, limit=STEP), STEP)
        await self._all(partial(reconciliations.forget, now=now, limit=STEP), STEP)
        await self._all(partial(self._forget_corrections, now), STEP)
        await self._database.write(partial(status.sum_hours, now=now))
        await self._all(partial(status.forget, now=now, limit=STEP), STEP)
        await self._database.write(status.bound)
        if self._relayed is not None:
            before, up_to = now - config_log.KEPT, self._relayed()
            await self._all(partial(config_log.forget, before=before, up_to=up_to), config_log.STEP)

    def _forget_corrections(self, now: datetime, connection: Connection) -> int:
        """What a correction corrects is older than itself, so it is gone from the ledger."""
        newest = corrections.newest(connection)
        if newest is None:
            return 0
        before = min(now, newest + BELIEVED) - self._keep_corrections
        return corrections.forget(connection, before, self._taken(connection), STEP)

    async def _all(self, step: Callable[[Connection], int], limit: int) -> None:
        await steps.run_all(self._database, step, limit, self._pause)
