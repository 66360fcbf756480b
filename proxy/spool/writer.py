"""The spool: a proxy's durable local queue of usage events, one SQLite file for each instance (counting 1).

Never waits for the disk on the event loop, never uses a sequence twice, and never gives a row away before its time:
rows go only when `trim` says so.

An event is safe from kill -9 when `put` returns, because the operating system has it; from a power cut it is safe
only under `full`. So a file of another boot is not written to again: its last rows may be gone, and their sequences
with them. It is left to be drained, and a new file with a new instance is begun.
"""

import asyncio
import errno
import logging
import os
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

from proxy.core.calls import SpoolUnavailableError
from proxy.spool.file import SUFFIX, SpoolFile, create, keep_mark, last_sequence
from runtime import ids, loops
from runtime.settings import SpoolSync
from schemas.usage import Outcome, UsageDraft

_CHECKPOINT_EVERY_S = 1.0
_WAL_RESTART_BYTES = 64 * 1024 * 1024
_LEAST_FREE_BYTES = 64 * 1024 * 1024
_BUSY_RETRY_S = 0.002
_BUSY_BOUND_S = 5.0
_TRIM_ROWS = 250
_FILLING = 0.9
"""From this share of its bound on, the spool would rather lose rows that are published than refuse new ones."""

log = logging.getLogger(__name__)


def boot_id() -> str:
    """Name the operating system's present run; where it has no name, a new one each time, which is the safe side."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ids.mint()


class Spool:
    """The file that this process writes. All that finishes in one turn of the loop goes in one transaction."""

    def __init__(self, path: Path, *, sync: SpoolSync, max_bytes: int) -> None:
        self.file = SpoolFile(path)
        self.instance = self.file.instance
        self._path = path
        self._max_bytes = max_bytes
        # a busy file is waited for by the loop's own timer, not inside SQLite
        self._writer = sqlite3.connect(path, timeout=0, check_same_thread=False, isolation_level=None)
        _set(self._writer, synchronous=sync.value)
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="spool-sync") if sync is SpoolSync.FULL else None
        self._pending: list[tuple[bytes, asyncio.Future[int]]] = []
        self._flushing = False
        self._trim_before = self._trimmed_before = self.file.begin()
        self._acknowledged = self._kept_mark = self.file.acknowledged_through
        self._blocked: str | None = None
        self.filling = False
        """Whether the file is near its bound, as of the last check."""
        self.taken: Counter[Outcome] = Counter()
        """How many events were given to `put` since the start."""

    @property
    def blocked(self) -> str | None:
        """Say why no event could be kept right now, so that no upstream is called for nothing; None: all is well."""
        return self._blocked

    @property
    def rows(self) -> int:
        """How many events the file still holds."""
        return self.file.end - self._trimmed_before

    def put(self, draft: UsageDraft) -> asyncio.Future[int]:
        """Make an event durable; its sequence is there when it is. Fails with SpoolUnavailableError."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[int] = loop.create_future()
        self._pending.append((draft.model_dump_json().encode(), written))
        self.taken[draft.outcome] += 1
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush, loop.time() + _BUSY_BOUND_S)
        return written

    def trim(self, before: int) -> None:
        """Let the rows below sequence `before` go; they go a few at a time."""
        self._trim_before = max(self._trim_before, min(before, self.file.end))

    def acknowledge(self, through: int) -> None:
        """Note that the topic holds every event up to sequence `through`; the file remembers it within a second."""
        self._acknowledged = max(self._acknowledged, through)

    async def maintain(self) -> None:
        """Checkpoint, trim and watch the space, for as long as the process runs."""
        with ThreadPoolExecutor(1, thread_name_prefix="spool-checkpoint") as thread:
            loop = asyncio.get_running_loop()
            while True:
                loops.turned(rest_s=_CHECKPOINT_EVERY_S)
                await asyncio.sleep(_CHECKPOINT_EVERY_S)
                while self._trimmed_before < self._trim_before and await self._trim_some():
                    loops.turned()
                    await asyncio.sleep(0)
                if self._kept_mark < self._acknowledged:
                    await self._keep_mark(self._acknowledged)
                before = self._blocked
                found = await loop.run_in_executor(thread, self._check_up)
                if self._blocked is before or found is not None:  # else a write failed while the check ran
                    self._blocked = found

    def close(self) -> None:
        """Close the file; what was put before is in it."""
        if self._writer_thread is not None:
            self._writer_thread.shutdown()
        batch, self._pending = self._pending, []
        if batch:  # their requests were cut off
            self.file.grown(last_sequence(self._writer) + 1)
            error = self._write([body for body, _ in batch])
            if error is not None:
                log.error("%d events are only in their slots until the next start: %s", len(batch), error)
        if self._kept_mark < self._acknowledged:
            with suppress(sqlite3.Error):  # some events would be published again
                keep_mark(self._writer, self._acknowledged)
        self._writer.close()
        self.file.close()

    def _flush(self, give_up_at: float) -> None:
        batch, self._pending = self._pending, []
        loop = asyncio.get_running_loop()
        if not batch:  # `close` has written it
            self._flushing = False
        elif self._writer_thread is None:
            self._settle(batch, self._write([body for body, _ in batch]), give_up_at)
        else:
            bodies = [body for body, _ in batch]
            write = loop.run_in_executor(self._writer_thread, self._write, bodies)
            write.add_done_callback(lambda done: self._settle(batch, done.result(), give_up_at))

    def _write(self, bodies: list[bytes]) -> sqlite3.Error | None:
        """Write rows from the file's end on, all or none."""
        first = self.file.end
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            self._writer.executemany("INSERT INTO event VALUES (?, ?)", enumerate(bodies, first))
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):  # it failed already; what matters is said by `error`
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            return error
        return None

    def _settle(
        self, batch: list[tuple[bytes, asyncio.Future[int]]], error: sqlite3.Error | None, give_up_at: float
    ) -> None:
        loop = asyncio.get_running_loop()
        if error is not None and _is_busy(error) and loop.time() < give_up_at:
            self._pending = batch + self._pending
            loop.call_later(_BUSY_RETRY_S, self._flush, give_up_at)
            return
        first = self.file.end
        if error is None:
            self.file.grown(first + len(batch))
        else:
            self._blocked = f"the spool cannot be written: {error}"
            log.error("%s", self._blocked)
        for place, (_, written) in enumerate(batch):
            if written.done():  # its request was cancelled; the event is in the file all the same
                continue
            if error is None:
                written.set_result(first + place)
            else:
                written.set_exception(SpoolUnavailableError(str(error)))
        self._flushing = bool(self._pending)
        if self._flushing:
            loop.call_soon(self._flush, loop.time() + _BUSY_BOUND_S)

    async def _trim_some(self) -> bool:
        """Remove a few rows; say whether that worked."""
        before = min(self._trim_before, self._trimmed_before + _TRIM_ROWS)
        done = await self._tidied(lambda: self._writer.execute("DELETE FROM event WHERE sequence < ?", (before,)))
        if done:
            self._trimmed_before = before
        return done

    async def _keep_mark(self, through: int) -> None:
        if await self._tidied(lambda: keep_mark(self._writer, through)):
            self._kept_mark = through

    async def _tidied(self, change: Callable[[], object]) -> bool:
        """Make a change that no event waits for; say whether that worked. It is tried again a second later."""

        def attempt() -> sqlite3.Error | None:
            try:
                change()
            except sqlite3.Error as error:
                return error
            return None

        thread = self._writer_thread
        error = attempt() if thread is None else await asyncio.get_running_loop().run_in_executor(thread, attempt)
        if error is not None and not _is_busy(error):
            log.warning("spool: tidying failed: %s", error)
        return error is None

    def _check_up(self) -> str | None:
        """Checkpoint and find out whether events can be kept; runs in a thread of its own."""
        try:
            with closing(sqlite3.connect(self._path, timeout=0, isolation_level=None)) as connection:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
                if Path(f"{self._path}-wal").stat().st_size > _WAL_RESTART_BYTES:
                    # under steady writes a passive checkpoint never ends the log; this holds writers off for a moment
                    connection.execute("PRAGMA wal_checkpoint(RESTART)")
                if self._blocked is not None:
                    connection.execute("UPDATE file SET probed_at = ?", (time.time(),))
                pages, page_size, free = (
                    connection.execute(f"PRAGMA {name}").fetchone()[0]
                    for name in ("page_count", "page_size", "freelist_count")
                )
        except sqlite3.Error as error:
            return self._blocked if _is_busy(error) else f"the spool cannot be written: {error}"
        except OSError as error:
            return f"the spool cannot be written: {error.strerror}"
        used = (pages - free) * page_size
        self.filling = used > _FILLING * self._max_bytes
        if used > self._max_bytes:
            return f"the spool holds its {self._max_bytes} bytes"
        if shutil.disk_usage(self._path.parent).free < _LEAST_FREE_BYTES:
            return f"the spool's disk is full ({os.strerror(errno.ENOSPC)})"
        return None


def open_folder(folder: Path, *, sync: SpoolSync, max_bytes: int) -> tuple[Spool, list[SpoolFile]]:
    """Open the folder's spool of this boot, made where there is none, and the older files that are to be drained.

    The caller holds the data directory's lock: no other process writes any of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    boot = boot_id()
    older: list[SpoolFile] = []
    current: Path | None = None
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        file = SpoolFile(path)
        if file.boot_id == boot and current is None:
            file.close()
            current = path
        else:
            older.append(file)
    return Spool(current or create(folder, boot), sync=sync, max_bytes=max_bytes), older


def drained(files: Iterable[SpoolFile]) -> list[SpoolFile]:
    """Remove the files of older boots that hold nothing any more; return the others, and what cannot be removed now."""
    kept = []
    for file in files:
        if file.is_empty():
            try:
                file.remove()
            except OSError as error:  # its disk is full, say; a later start tries again
                log.warning("the empty spool %s stays: %s", file.path.name, error)
            else:
                continue
        kept.append(file)
    return kept


def _set(connection: sqlite3.Connection, *, synchronous: str) -> None:
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA wal_autocheckpoint=0")  # `maintain` does it, off the loop


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
