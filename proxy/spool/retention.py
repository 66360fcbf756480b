"""Frees what a spool's readers have all passed, where they read it in the same process."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from proxy.spool.file import SpoolFile
from proxy.spool.writer import Spool
from runtime import outage
from runtime.outage import Outage

EVERY_S = 1.0
READ_WITHIN_S = 5.0
"""How long a server that stops waits for the readers of its spool; they find the rest at the next start."""
_LOOK_S = 0.02

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

    async def read_to_end(self) -> None:
        """Return when every reader has passed all that was spooled, or after READ_WITHIN_S."""
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_WITHIN_S):
                while any(self._done_before(file) < file.end for file in (*self._older, self._spool.file)):  # noqa: ASYNC110 (bounded)
                    await asyncio.sleep(_LOOK_S)

    async def _free(self) -> None:
        self._spool.trim(self._done_before(self._spool.file))
        for file in [older for older in self._older if self._done_before(older) >= older.end]:
            await file.let_go(file.end, 0)
            self._older.remove(file)
