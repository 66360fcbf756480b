"""What dispatchers do beside delivering: redrive for receivers that are back, and remove what has expired.

A clock that is far ahead removes nothing: PostgreSQL's own says what has expired; on SQLite, whose machine has no
other, what the data said when the process began, and the time since.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from runtime import loops
from runtime.clock import BelievedClock, Clock, Steady
from runtime.database import engines as databases
from runtime.database import steps
from runtime.database.engines import Database
from runtime.outage import Outage, Pause
from webhooks.core.health import Rule
from webhooks.store import redrive, retention

REDRIVE_EVERY_S = 1.0
REMOVE_EVERY_S = 600.0
FIRST_REMOVE_S = 60.0
"""After a start: what waited while no dispatcher was there is attempted before it can be given up."""

KEYS_MARGIN = timedelta(days=7)
"""How much longer than the ledger's days their keys are kept: a ledger may be late in closing one."""

_log = logging.getLogger(__name__)

Step = Callable[[Connection, datetime, int], int]
"""Removes at most so many of what has expired at a moment; returns how many."""


class Upkeep:
    """Runs beside dispatch, in each dispatcher: what one does the others find done. `keep_days` is the ledger's.

    Nothing but a redriven delivery waits longer than `longest_wait_s` for its next attempt.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        rule: Rule,
        keep_days: int,
        *,
        longest_wait_s: float,
        spools: Collection[str] = (),
        steady: Steady = time.monotonic,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._database = database
        self._clock = clock
        self._believed = BelievedClock(clock, steady, what="deliveries and keys")
        self._rule = rule
        self._longest_wait = timedelta(seconds=longest_wait_s)
        self._spools = spools
        self._keep_keys = timedelta(days=keep_days) + KEYS_MARGIN
        self._pause = pause

    async def redrive(self) -> None:
        """Redrive for receivers that are back, for ever."""
        outage = Outage("webhook redrive", _log, self._pause)
        while True:
            while await outage.ride_out(self.redrive_some):
                loops.turned()
                await self._pause(steps.REST_S)
            loops.turned(0, rest_s=REDRIVE_EVERY_S, waits_for="receivers that are back")
            await self._pause(REDRIVE_EVERY_S)

    async def remove(self) -> None:
        """Remove what has expired, for ever."""
        outage = Outage("webhook retention", _log, self._pause)
        await outage.ride_out(self.bring_forward)
        loops.turned(0, rest_s=FIRST_REMOVE_S)
        await self._pause(FIRST_REMOVE_S)
        while True:
            await outage.ride_out(self.bring_forward)
            await outage.ride_out(self.remove_all)
            loops.turned(0, rest_s=REMOVE_EVERY_S)
            await self._pause(REMOVE_EVERY_S)

    async def redrive_some(self) -> bool:
        """Take one step; return whether there may be another."""
        now, rule = self._clock(), self._rule
        count = await self._database.write(lambda connection: redrive.redrive_returned(connection, now, rule))
        if count:
            _log.info("%d dead letters are redriven: their receiver is back", count)
        return count is not None

    async def bring_forward(self) -> None:
        """Bring to now what a clock that ran ahead has planned for later than any rule allows."""
        count = await self._all(self._bring_forward, redrive.STEP)
        if count:
            _log.warning("%d deliveries waited longer than any rule allows, as after a clock ran ahead: due now", count)

    async def remove_all(self) -> None:
        """Remove all that has expired by now."""
        waited = removed = 0
        for workspace_id in await self._database.read(retention.workspaces):
            waited += await self._all(partial(_of_workspace, retention.give_up, workspace_id), retention.STEP)
            removed += await self._all(partial(_of_workspace, retention.remove, workspace_id), retention.STEP)
        forgotten = await self._all(self._forget, retention.KEY_STEP)
        await self._all(self._forget_positions, retention.KEY_STEP)
        if waited:
            _log.warning("%d deliveries became dead letters: %s", waited, retention.WAITED)
        if removed or forgotten:
            _log.info("removed %d deliveries and %d keys that had expired", removed, forgotten)

    async def _all(self, step: Step, limit: int) -> int:
        def at_once(connection: Connection) -> int:
            return step(connection, self._now(connection), limit)

        return await steps.run_all(self._database, at_once, limit, self._pause)

    def _bring_forward(self, connection: Connection, now: datetime, limit: int) -> int:
        per_s = self._rule.redrive_per_s
        return redrive.bring_forward(connection, now, self._longest_wait, per_s, limit)

    def _forget(self, connection: Connection, now: datetime, limit: int) -> int:
        return retention.forget(connection, now.date() - self._keep_keys, limit)

    def _forget_positions(self, connection: Connection, now: datetime, limit: int) -> int:
        return retention.forget_positions(connection, now - self._keep_keys, self._spools, limit)

    def _now(self, connection: Connection) -> datetime:
        return databases.now(connection, lambda: self._believed.now(partial(retention.newest, connection)))


def _of_workspace(
    step: Callable[..., int], workspace_id: str, connection: Connection, now: datetime, limit: int
) -> int:
    return step(connection, workspace_id, now, limit)
