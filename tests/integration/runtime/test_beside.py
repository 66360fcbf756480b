"""Work in a process beside this one: it is done there, it ends with its parent, and its end is no fault."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from runtime.beside import Beside

PARENT = """
import asyncio
from runtime.beside import Beside

async def main():
    print(await Beside().begun(), flush=True)
    await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.fixture
async def beside() -> AsyncIterator[Beside]:
    one = Beside()
    yield one
    await one.close()


def refuse() -> None:
    raise ValueError("no")


async def test_work_is_done_there_once_it_has_begun(beside: Beside) -> None:
    assert await beside.run(os.getpid) == os.getpid()
    there = await beside.begun()
    assert await beside.run(os.getpid) == there != os.getpid()
    assert await beside.run(len, b"x" * 2_000_000) == 2_000_000
    with pytest.raises(ValueError, match="no"):
        await beside.run(refuse)


async def test_work_is_done_here_where_it_was_killed_and_there_again_later(beside: Beside) -> None:
    killed = await beside.begun()
    os.kill(killed, signal.SIGKILL)
    while await beside.run(os.getpid) == killed:  # until its end is noticed
        pass
    assert await beside.run(os.getpid) == os.getpid()
    assert await beside.begun() not in (killed, os.getpid())


async def test_it_outlives_what_a_terminal_sends_and_not_its_parent() -> None:
    """Its standard output is its parent's pipe: that comes to its end when both have ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    child = int(await process.stdout.readline())
    os.kill(child, signal.SIGINT)
    os.kill(child, 0)
    process.kill()
    assert await process.stdout.read() == b""
    await process.wait()


async def test_where_there_can_be_none_threads_do_it(beside: Beside, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> None:
        raise OSError("no shared memory")

    monkeypatch.setattr("runtime.beside.ProcessPoolExecutor", fail)
    assert await beside.run(os.getpid) == os.getpid()
    with pytest.raises(OSError, match="no process"):
        await beside.begun()
