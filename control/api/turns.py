"""Turns at the threads that read for the management API: one at a time for each workspace, the others of it wait.

Never frees a turn before its work has ended: a client that leaves does not stop the thread that reads for it.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from control.core.refusals import OverloadedError, ShareExceededError

Result = TypeVar("Result")

OF_ONE = 32
"""Reads of one workspace under way or waiting. One reads at a time, so that the other threads are the others'."""

AT_ONCE = 256
"""The same of all workspaces together."""


class ReadTurns:
    """For one event loop."""

    def __init__(self) -> None:
        self._wanted: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}

    async def take(self, workspace_id: str, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Run `work` in the workspace's turn. Raise ShareExceededError or OverloadedError where too many wait."""
        if self._wanted[workspace_id] >= OF_ONE:
            raise ShareExceededError(f"{OF_ONE} reads of this workspace are under way; send it again in a moment")
        if self._wanted.total() >= AT_ONCE:
            raise OverloadedError(f"{AT_ONCE} reads are under way; send it again in a moment")
        self._wanted[workspace_id] += 1
        turn = asyncio.get_running_loop().create_task(self._in_turn(workspace_id, work))
        turn.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # seen, if nobody waits for it
        return await asyncio.shield(turn)

    async def _in_turn(self, workspace_id: str, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        try:
            async with self._locks.setdefault(workspace_id, asyncio.Lock()):
                return await work()
        finally:
            self._wanted[workspace_id] -= 1
            if not self._wanted[workspace_id]:
                del self._wanted[workspace_id], self._locks[workspace_id]
