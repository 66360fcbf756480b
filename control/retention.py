"""Removes what control keeps no longer: the audit log beyond its days and, embedded, the configuration's old changes.

Never because a clock is far ahead: ages are counted from a week beyond the newest entry at most.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from control.store import audit
from runtime import loops
from runtime.clock import Clock
from runtime.config import log as config_log
from runtime.database.engines import Database
from runtime.outage import Outage, Pause

EVERY_S = 600.0
STEP = 1000
"""Entries that one transaction removes."""

_REST_S = 0.05

_log = logging.getLogger(__name__)


class Retention:
    """Runs beside the management API, in each of its processes: what one removes the others find gone."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        audit_days: int,
        relayed: Callable[[], int] | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        """`relayed` returns up to which version every reader of the changes has them; None: the relay removes them."""
        self._database = database
        self._clock = clock
        self._keep = timedelta(days=audit_days)
        self._relayed = relayed
        self._pause = pause

    async def run(self) -> None:
        """Remove what has expired every 10 minutes, for ever."""
        outage = Outage("control's retention", _log, self._pause)
        while True:
            loops.turned(0, rest_s=EVERY_S)
            await self._pause(EVERY_S)
            await outage.ride_out(self.remove_all)

    async def remove_all(self) -> None:
        """Remove all that has expired by now."""
        now = self._clock()
        while await self._database.write(partial(audit.forget, now=now, keep=self._keep, limit=STEP)) == STEP:
            await self._rest()
        if self._relayed is None:
            return
        before, up_to = now - config_log.KEPT, self._relayed()
        while await self._database.write(partial(config_log.forget, before=before, up_to=up_to)):
            await self._rest()

    async def _rest(self) -> None:
        loops.turned()
        await self._pause(_REST_S)
