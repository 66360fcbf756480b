"""What tests of the spool do with one: look after it, see what it asks of SQLite, open it again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from proxy.spool import file as spool_file
from proxy.spool import writer
from proxy.spool.writer import Spool
from runtime.settings import SpoolSync
from tests.integration.proxy.fake_topic import until


@asynccontextmanager
async def maintained(opened: Spool) -> AsyncIterator[None]:
    running = asyncio.create_task(opened.maintain())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until_blocked_is(opened: Spool, *, blocked: bool) -> None:
    await until(lambda: (opened.blocked is not None) is blocked)


def statements(opened: Spool) -> list[str]:
    """Return what the writer asks of SQLite from now on, granted or not; the list grows."""
    asked: list[str] = []
    opened._writer.set_trace_callback(asked.append)
    return asked


async def until_asked(asked: list[str], times: int, statement: str) -> None:
    await until(lambda: sum(one.startswith(statement) for one in asked) >= times)


async def until_looked_after(opened: Spool) -> None:
    """Return when the space was looked at, from beginning to end, since the call."""
    check_up, looks = opened._check_up, 0

    def counted() -> str | None:
        nonlocal looks
        found = check_up()
        looks += 1
        return found

    opened._check_up = counted  # type: ignore[method-assign]
    await until(lambda: looks >= 2)  # what the first one found is known then
    opened._check_up = check_up  # type: ignore[method-assign]


def keys(file: spool_file.SpoolFile) -> list[str]:
    return [event.idempotency_key for event in file.remaining()]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def size(path: Path) -> int:
    return path.stat().st_size


def reopened(folder: Path) -> Spool:
    again, older = writer.open_folder(folder, sync=SpoolSync.NORMAL, max_bytes=2**30)
    assert not older
    return again
