"""Makes the ledger's next days and drops those that are over, beside the counting."""

import asyncio
import logging
from datetime import date
from functools import partial

from metering.store import day_partitions
from runtime import loops
from runtime.clock import Clock
from runtime.database.engines import Database
from runtime.outage import Outage, is_transient

_EVERY_S = 3600.0

_log = logging.getLogger(__name__)


class LedgerUpkeep:
    """Runs in every process that counts; the database lets one at a time change the days."""

    def __init__(self, database: Database, clock: Clock, *, keep_days: int) -> None:
        """`keep_days`: how many days stay, the current one among them."""
        self._database = database
        self._clock = clock
        self._keep_days = keep_days

    async def run(self) -> None:
        """Make and drop days once an hour, for ever."""
        outage = Outage("the ledger's days", _log)
        while True:
            loops.turned()
            today = self._clock().date()
            await outage.ride_out(lambda today=today: self._database.write(partial(day_partitions.ensure, today=today)))  # type: ignore[misc]
            await self.drop(today)
            loops.turned(0, rest_s=_EVERY_S)
            await asyncio.sleep(_EVERY_S)

    async def drop(self, today: date) -> None:
        """Drop what is over; an hour later where that does not go, since each try holds the writers up.

        A long reader may be in the way, or what only an operator can mend: a view on a day, a right that is missing.
        The days stay then, and the counting goes on.
        """
        try:
            await self._database.write(partial(day_partitions.drop_expired, today=today, keep_days=self._keep_days))
        except Exception as error:  # noqa: BLE001 - whatever is wrong with old days, new ones are to be counted
            level = logging.INFO if is_transient(error) else logging.ERROR
            reason = " ".join(str(getattr(error, "orig", None) or error).split())
            _log.log(level, "the days that are over are dropped later: %s", reason)
