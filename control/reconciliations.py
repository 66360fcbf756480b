"""Runs a reconciliation that the operator asks for at the console, in the background, one at a time.

What reads and compares the accounts is handed in.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from functools import partial
from typing import NamedTuple

from control.core.refusals import ConflictError
from control.store.monitoring import reconciliations as store
from control.store.monitoring.reconciliations import Verdict
from runtime import ids, loops
from runtime.clock import Clock
from runtime.database.engines import Database
from runtime.outage import Outage

_EVERY_S = 1.0

_log = logging.getLogger(__name__)


class ReconcileRequest(NamedTuple):
    """What is to be compared."""

    day: date
    """A UTC day."""
    proxies: Sequence[str]
    """Addresses of ops ports; for an installation of several processes alone."""


class ReconcileAnswer(NamedTuple):
    """What came of it."""

    verdict: Verdict
    text: str
    """What `tollgate reconcile` prints, or why nothing could be compared."""


Reconcile = Callable[[ReconcileRequest], Awaitable[ReconcileAnswer]]
"""Compares the accounts of a day, in bounded time."""


class Reconciliations:
    """Those of one process. Several processes of a database have one under way at a time between them."""

    def __init__(self, database: Database, clock: Clock, reconcile: Reconcile) -> None:
        self._database = database
        self._clock = clock
        self._reconcile = reconcile
        self._asked: tuple[str, ReconcileRequest] | None = None
        self._answer: tuple[str, datetime, ReconcileAnswer] | None = None

    async def ask(self, request: ReconcileRequest) -> None:
        """Have one run, as soon as `run` looks. Raise ConflictError where one is under way."""
        now = self._clock()
        id_ = ids.mint(now)
        begun = self._asked is None and await self._database.write(
            partial(store.begin, id_=id_, day=request.day, now=now)
        )
        if not begun:
            raise ConflictError("a reconciliation is under way; ask again when it has ended", code="under_way")
        self._asked = id_, request

    async def run(self) -> None:
        """Run what is asked for, for ever."""
        await Outage("the console's reconciliation", _log).repeat(_EVERY_S, self.step)

    async def step(self) -> None:
        """Run what was asked for, if anything was, and keep what came of it."""
        if self._asked is not None and self._answer is None:
            id_, request = self._asked
            loops.turned(rest_s=store.LOST_AFTER.total_seconds(), waits_for="the accounts")
            answer = await self._compared(request)
            self._answer = id_, self._clock(), answer
        if self._answer is not None:
            id_, at, (verdict, text) = self._answer
            await self._database.write(partial(store.end, id_=id_, now=at, verdict=verdict, text=text))
            self._asked = self._answer = None

    async def _compared(self, request: ReconcileRequest) -> ReconcileAnswer:
        try:
            return await self._reconcile(request)
        except Exception:  # noqa: BLE001 - a page's button must not end the process; the log has it all
            _log.exception("a reconciliation that the console asked for failed")
            return ReconcileAnswer(Verdict.NOT_COMPARED, "It failed; the log of this process says why.")
