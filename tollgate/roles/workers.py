"""Several workers of `tollgate serve proxy` on one port: starts them, restarts one that died, ends them together.

A worker is a whole proxy with a data directory of its own, so that nothing is shared but the port, whose connections
the system deals out; the first one works in the directory that is named. A directory that no worker has any more is
given to one without a public port, which publishes what is left in it and ends.
"""

import asyncio
import contextlib
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.spool import file as spool_file
from proxy.spool import slots
from proxy.spool.file import SpoolFile, SpoolFileError
from runtime.settings import Settings
from tollgate.installation import InstallationError
from tollgate.roles.process import Addresses

FOLDER = "workers"
"""Where the data directories of all workers but the first lie, by their numbers."""
MOST = 64
"""Of workers."""

_FIRST_PAUSE_S = 1.0
_MOST_PAUSE_S = 30.0
_STEADY_S = 60.0
"""A worker that ran for so long is started again without a longer pause than the first."""
_END_WITHIN_S = 70.0
"""A worker that was asked to end and takes longer is killed: streams have 30 s, publishing 10."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker: `words` stand behind `tollgate`."""

    number: int
    words: Sequence[str]
    ops_port: int = 0
    """0: a free one, which it keeps when it is started again."""
    leaves: bool = False
    """Whether it only publishes what is left, and ends."""


def folder(data_dir: Path, number: int) -> Path:
    """Return the data directory of a worker; workers are counted from 1."""
    return data_dir if number == 1 else data_dir / FOLDER / str(number)


def left_behind(data_dir: Path, count: int) -> list[int]:
    """Return the numbers above `count` of workers whose directories hold what is not published."""
    named = [path.name for path in (data_dir / FOLDER).glob("*") if path.is_dir()]
    numbers = sorted(int(name) for name in named if name.isascii() and name.isdecimal())
    return [number for number in numbers if number > count and _holds_something(folder(data_dir, number))]


def _holds_something(data_dir: Path) -> bool:
    if any(True for _ in slots.peek(data_dir / slots.FILE)):
        return True
    for path in (data_dir / spool_file.FOLDER).glob(f"*{spool_file.SUFFIX}"):
        try:
            file = SpoolFile(path)
        except SpoolFileError:
            return True  # its worker says what is wrong with it
        file.close()
        if file.acknowledged_through < file.end - 1:
            return True
    return False


def of_worker(loaded: Settings, number: int) -> Settings:
    """Return a worker's settings."""
    return loaded.model_copy(update={"data_dir": folder(loaded.data_dir, number)})


class Supervisor:
    """Keeps workers running until SIGTERM or SIGINT."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._stopping = asyncio.Event()
        self._addresses: dict[int, Addresses] = {}
        self._all_ready = asyncio.Event()

    async def run(self, announce: Callable[[list[Addresses]], None]) -> None:
        """Run; `announce` is told the workers' addresses, by their numbers, when traffic may come to all.

        Raise InstallationError where one ends before it was ready for the first time: its own output says why.
        """
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signal_number, self._stopping.set)
        try:
            async with asyncio.TaskGroup() as group:
                for worker in self._workers:
                    group.create_task(self._keep(worker))
                group.create_task(self._announce(announce))
        except* InstallationError as failed:
            raise failed.exceptions[0] from None

    async def _announce(self, announce: Callable[[list[Addresses]], None]) -> None:
        ready, stopping = asyncio.ensure_future(self._all_ready.wait()), asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((ready, stopping), return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                announce([self._addresses[number] for number in sorted(self._addresses)])
        finally:
            ready.cancel()
            stopping.cancel()

    async def _keep(self, worker: Worker) -> None:
        """Run one worker, again and again; one that leaves until it has."""
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_PAUSE_S
        was_ready = worker.leaves
        while not self._stopping.is_set():
            began = loop.time()
            is_ready, code = await self._run(worker)
            was_ready = was_ready or is_ready
            if self._stopping.is_set():
                return
            if worker.leaves and code == 0:
                log.info("what worker %d had left is published", worker.number)
                return
            if not was_ready:
                raise InstallationError(f"worker {worker.number} ended with exit code {code} before it was ready")
            if loop.time() - began > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            log.error("worker %d ended with exit code %d; it is started again in %g s", worker.number, code, pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
            pause_s = min(2 * pause_s, _MOST_PAUSE_S)

    async def _run(self, worker: Worker) -> tuple[bool, int]:
        """Start a worker and wait for its end; return whether it was ready, and its exit code."""
        known = self._addresses.get(worker.number)
        ops_port = worker.ops_port if known is None else known.ops.rpartition(":")[2]
        words = (sys.executable, "-m", "tollgate", *worker.words, "--ops-port", str(ops_port))
        # its standard input ends with this process, however that ends, and the worker with it
        running = await asyncio.create_subprocess_exec(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ended = asyncio.ensure_future(running.wait())
        reading = asyncio.ensure_future(self._hear(worker, running))
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((ended, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            code = await _end(running, ended)
        return await reading, code

    async def _hear(self, worker: Worker, running: asyncio.subprocess.Process) -> bool:
        """Note the addresses that a worker announces; return whether it has."""
        if running.stdout is None:
            raise RuntimeError("the worker's output is not read")
        line = await running.stdout.readline()
        if not line:
            return False
        if not worker.leaves:
            said = json.loads(line)
            self._addresses[worker.number] = Addresses(said["url"], said["ops_url"])
            if len(self._addresses) == sum(not each.leaves for each in self._workers):
                self._all_ready.set()
        return True


async def _end(running: asyncio.subprocess.Process, ended: asyncio.Future[int]) -> int:
    """Ask a process to end if it has not, by force where it does not in time; return its exit code."""
    if not ended.done():
        with contextlib.suppress(ProcessLookupError):
            running.terminate()
        try:
            return await asyncio.wait_for(ended, _END_WITHIN_S)
        except TimeoutError:
            running.kill()
    return await running.wait()
