"""What dispatchers do beside delivering: redrive for receivers that are back, and remove what has expired.

Never in a hurry: each step is a small transaction, with a rest before the next.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from runtime.clock import Clock
from runtime.database import Database
from runtime.outage import Outage, Pause
from webhooks import redrive, retention

REDRIVE_EVERY_S = 1.0
REMOVE_EVERY_S = 600.0
FIRST_REMOVE_S = 60.0
"""After a start: what waited while no dispatcher was there is attempted before it can be given up."""

KEYS_MARGIN = timedelta(days=7)
"""How much longer than the ledger's days their keys are kept: a ledger may be late in closing one."""

_REST_S = 0.05

_log = logging.getLogger(__name__)

Step = Callable[..., int]
"""Of a connection and a `limit`."""


class Upkeep:
    """Runs beside dispatch, in each dispatcher: what one does the others find done. `keep_days` is the ledger's."""

    def __init__(
        self, database: Database, clock: Clock, *, redrive_per_s: float, keep_days: int, pause: Pause = asyncio.sleep
    ) -> None:
        self._database = database
        self._clock = clock
        self._redrive_per_s = redrive_per_s
        self._keep_keys = timedelta(days=keep_days) + KEYS_MARGIN
        self._pause = pause

    async def redrive(self) -> None:
        """Redrive for receivers that are back, for ever."""
        outage = Outage("webhook redrive", _log, self._pause)
        while True:
            while await outage.ride_out(self.redrive_some):
                await self._pause(_REST_S)
            await self._pause(REDRIVE_EVERY_S)

    async def remove(self) -> None:
        """Remove what has expired, for ever."""
        outage = Outage("webhook retention", _log, self._pause)
        await self._pause(FIRST_REMOVE_S)
        while True:
            await outage.ride_out(self.remove_all)
            await self._pause(REMOVE_EVERY_S)

    async def redrive_some(self) -> bool:
        """Take one step; give whether there may be another."""
        now, per_s = self._clock(), self._redrive_per_s
        count = await self._database.write(lambda connection: redrive.redrive_returned(connection, now, per_s))
        if count:
            _log.info("%d dead letters are redriven: their receiver is back", count)
        return count is not None

    async def remove_all(self) -> None:
        """Remove all that has expired by now."""
        now = self._clock()
        waited = removed = 0
        for workspace_id in await self._database.read(retention.workspaces):
            give_up = partial(retention.give_up, workspace_id=workspace_id, now=now)
            remove = partial(retention.remove, workspace_id=workspace_id, now=now)
            waited += await self._all(give_up, retention.STEP)
            removed += await self._all(remove, retention.STEP)
        before = now.date() - self._keep_keys
        forgotten = await self._all(partial(retention.forget, before=before), retention.KEY_STEP)
        if waited:
            _log.warning("%d deliveries became dead letters: %s", waited, retention.WAITED)
        if removed or forgotten:
            _log.info("removed %d deliveries and %d keys that had expired", removed, forgotten)

    async def _all(self, step: Step, limit: int) -> int:
        total = 0
        while True:
            count = await self._database.write(partial(step, limit=limit))
            total += count
            if count < limit:
                return total
            await self._pause(_REST_S)
