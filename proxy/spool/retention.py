"""Frees what a spool's readers have all passed, where they read it in the same process."""

import logging
from collections.abc import Callable, Sequence

from proxy.spool.file import SpoolFile
from proxy.spool.writer import Spool
from runtime import outage
from runtime.outage import Outage

EVERY_S = 1.0

_log = logging.getLogger(__name__)


class SpoolRetention:
    """Frees rows of the spool that is written, and the whole of an older file, which goes at the next start."""

    def __init__(self, spool: Spool, older: Sequence[SpoolFile], done_before: Callable[[SpoolFile], int]) -> None:
        """`done_before` returns the first sequence of a file that a reader has not committed yet."""
        self._spool = spool
        self._older = list(older)
        self._done_before = done_before

    async def run(self) -> None:
        """Free rows once a second, for ever; while the disk does not take it, they stay."""
        disk = Outage("the removal of delivered usage events", _log, of="the disk", passes=outage.is_of_disk)
        await disk.repeat(EVERY_S, self._free, did=1)

    async def _free(self) -> None:
        self._spool.trim(self._done_before(self._spool.file))
        for file in [older for older in self._older if self._done_before(older) >= older.end]:
            await file.let_go(file.end, 0)
            self._older.remove(file)
