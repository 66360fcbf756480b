"""What tests of the spool do with one: look after it, bound its disk, damage it, open it again."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from proxy.spool import file as spool_file
from proxy.spool import segments, writer
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


@contextmanager
def no_file_beyond(size_bytes: int) -> Iterator[None]:
    """Have the system let no file of this process grow beyond a size: it takes a part of a write, then refuses."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def damage(folder: Path, *sequences: int) -> None:
    """Change one byte of these events on the disk."""
    for path in sorted(folder.glob("*.log")):
        whole = bytearray(path.read_bytes())
        for record in segments.records(path):
            if record.sequence in sequences:
                whole[record.end - 1] ^= 1
        path.write_bytes(whole)


@contextmanager
def rows_kept_by_the_disk(folder: Path) -> Iterator[None]:
    """Have the disk refuse to note which rows of a spool are wanted."""
    in_the_way = folder / "state.new"
    in_the_way.mkdir()
    try:
        yield
    finally:
        in_the_way.rmdir()


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


def size(folder: Path) -> int:
    """Return what the segments of a spool take."""
    return sum(path.stat().st_size for path in folder.glob("*.log"))


def reopened(folder: Path) -> Spool:
    again, older = writer.open_folder(folder, sync=SpoolSync.NORMAL, max_bytes=2**30)
    assert not older
    return again
