"""Work that keeps the interpreter to itself for long, in a process beside this one: a thread would stop the others.

Until the process has begun, and where there can be none, the work is done in a thread. It ends with ours, also where
ours is killed.
"""

import asyncio
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from typing import TypeVar, TypeVarTuple

_NICER_BY = 5
"""Where both have one core, who waits for a short answer goes first."""
_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")

log = logging.getLogger(__name__)


class Beside:
    """One process, begun when it is first wanted; it does one piece of work after the other."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._begun: Future[int] | None = None
        self._is_impossible = False

    async def run(self, work: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
        """Return what `work` returns, a function of a module. Raise what it raises."""
        self._begin()
        if self._pool is not None and self._begun is not None and self._begun.done():
            try:
                return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)
            except BrokenExecutor:  # somebody killed it; the next piece of work begins another
                log.warning("the process for large bodies ended; they are read here until another has begun")
                await self.close()
        return await asyncio.to_thread(work, *args)

    async def begun(self) -> int:
        """Return its process id once it has begun. Raise OSError where there can be none."""
        self._begin()
        if self._begun is None:
            raise OSError("there can be no process beside this one")
        return await asyncio.wrap_future(self._begun)

    async def close(self) -> None:
        """End it, once it has done what it is at."""
        pool, self._pool, self._begun = self._pool, None, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    def _begin(self) -> None:
        if self._pool is not None or self._is_impossible:
            return
        try:
            pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _prepare)
            self._begun = pool.submit(os.getpid)
            self._pool = pool
        except OSError as error:  # no shared memory for its locks, or no more processes
            self._is_impossible = True
            log.warning("large bodies are read in threads, where they delay others: %s", error)


def _prepare() -> None:
    """Make the process one that ends with its parent and by nothing else."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal and systemd send them to all; the parent ends its work first
    os.nice(_NICER_BY)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
