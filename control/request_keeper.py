"""Keeps what became of the requests that were refused or failed, within its bounds (contract 2.5)."""

import logging
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from control.store import requests
from runtime import loops
from runtime.database.engines import Database
from runtime.outage import Outage
from schemas.monitoring.requests import RequestRecord

_EVERY_S = 1.0
_BOUND_EVERY = 1000
"""Records that are kept between two looks at the bounds, which count all there are."""

_log = logging.getLogger(__name__)


class RequestKeeper:
    """Writes the records of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._unbounded = _BOUND_EVERY

    async def keep(self, records: Sequence[RequestRecord], also: Callable[[Connection], bool] = lambda _: True) -> None:
        """Keep some in one transaction, unless `also`, which is run first in it, returns False."""

        def write(connection: Connection) -> None:
            if also(connection):
                requests.add(connection, records)
                if self._unbounded >= _BOUND_EVERY:
                    requests.bound(connection)

        self._unbounded += len(records)
        await self._database.write(write)
        self._unbounded %= _BOUND_EVERY

    async def run(self, take: Callable[[], Sequence[RequestRecord]]) -> None:
        """Keep once a second what `take` gives, for ever."""
        held: list[RequestRecord] = []

        async def step() -> None:
            held.extend(take())
            if held:
                await self.keep(held)
                loops.turned(len(held), rest_s=_EVERY_S)
                held.clear()

        await Outage("the keeping of requests", _log).repeat(_EVERY_S, step)
