"""The spool: a proxy's durable local queue of usage events, one folder of segments for each instance (counting 1).

Never uses a sequence twice, and never gives a row away before its time: rows go only when `trim` says so. Under
`normal` the event loop writes into the operating system's memory, which a thread has reach the disk each second; under
`full` a thread writes, and an event is durable when the disk has it.

An event is safe from kill -9 when `put` returns, because the operating system has it; from a power cut it is safe
only under `full`. So a spool of another boot is not written to again: its last rows may be gone, and their sequences
with them. It is left to be drained, and a new one with a new instance is begun.
"""

import asyncio
import errno
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from proxy.core.calls import SpoolUnavailableError
from proxy.spool import file as spool_file
from proxy.spool import segments
from proxy.spool.file import SUFFIX, SpoolFile
from runtime import ids, loops
from runtime.settings import SpoolSync
from schemas.usage import Outcome, UsageDraft

_TIDY_EVERY_S = 1.0
_SEGMENT_BYTES = 16 * 1024 * 1024
"""At this size the next segment is begun: with its last row so much goes at once."""
_LEAST_SEGMENTS = 16
"""In how many parts a spool of a small bound is kept."""
_LEAST_FREE_BYTES = 64 * 1024 * 1024
_PROBE_BYTES = 4096
_CLOSED = -1
_FILLING = 0.9
"""From this share of its bound on, the spool would rather lose rows that are published than refuse new ones."""

Told = Callable[[int | SpoolUnavailableError], None]
"""Hears an event's sequence, or why it could not be kept. Must not raise."""

log = logging.getLogger(__name__)


def boot_id() -> str:
    """Name the operating system's present run; where it has no name, a new one each time, which is the safe side."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ids.mint()


class Spool:
    """The spool that this process writes. All that ends in one turn of the loop goes in one write."""

    def __init__(self, path: Path, *, sync: SpoolSync, max_bytes: int) -> None:
        self.file = SpoolFile(path)
        self.instance = self.file.instance
        self._path = path
        self._max_bytes = max_bytes
        self._segment_bytes = min(_SEGMENT_BYTES, max_bytes // _LEAST_SEGMENTS)
        self._is_full = sync is SpoolSync.FULL
        self._writer_thread = ThreadPoolExecutor(1, thread_name_prefix="spool-sync") if self._is_full else None
        self._size = self.file.written_bytes
        """Where the next record goes."""
        self._written_end = self.file.end
        """One past the newest event that is written; the readers hear of it on the loop."""
        self.file.segments.cut(self._size)
        self._file = os.open(self.file.segments.newest, os.O_WRONLY)
        self._synced = self.file.segments.first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pending: list[tuple[bytes, Told]] = []
        self._flushing = False
        self._trim_before = self.file.begin()
        self._acknowledged = self.file.acknowledged_through
        self._kept_changes = 0
        self._blocked: str | None = None
        self._cannot_write: str | None = None
        """What the last probe of a disk that had refused has found; None: it takes something again."""
        self.filling = False
        """Whether the spool is near its bound, as of the last check."""
        self.taken: Counter[Outcome] = Counter()
        """How many events were given to `put` since the start."""

    @property
    def blocked(self) -> str | None:
        """Say why no event could be kept right now, so that no upstream is called for nothing; None: all is well."""
        return self._blocked

    @property
    def rows(self) -> int:
        """How many events the spool still holds."""
        return self.file.end - self.file.begin()

    def append(self, event: bytes, outcome: Outcome, told: Told) -> None:
        """Make an event durable; `told` hears its sequence when it is, or why it could not be kept. It never raises."""
        self._pending.append((event, told))
        self.taken[outcome] += 1
        if not self._flushing:
            self._flushing = True
            self._running_loop().call_soon(self._flush)

    def put(self, draft: UsageDraft) -> asyncio.Future[int]:
        """Make an event durable; its sequence is there when it is. Fails with SpoolUnavailableError."""
        written: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def told(outcome: int | SpoolUnavailableError) -> None:
            if written.done():  # whoever waited was cancelled; the event is in the file all the same
                return
            if isinstance(outcome, int):
                written.set_result(outcome)
            else:
                written.set_exception(outcome)

        self.append(draft.model_dump_json().encode(), draft.outcome, told)
        return written

    def trim(self, before: int) -> None:
        """Let the rows below sequence `before` go; within a second, their bytes a segment at a time."""
        self._trim_before = max(self._trim_before, min(before, self.file.end))

    def acknowledge(self, through: int) -> None:
        """Note that the topic holds every event up to sequence `through`; the file remembers it within a second."""
        self._acknowledged = max(self._acknowledged, through)

    async def maintain(self) -> None:
        """Let rows go, have all reach the disk and watch the space, for as long as the process runs."""
        with ThreadPoolExecutor(1, thread_name_prefix="spool-tidy") as thread:
            loop = asyncio.get_running_loop()
            while True:
                loops.turned(rest_s=_TIDY_EVERY_S)
                await asyncio.sleep(_TIDY_EVERY_S)
                if self._size >= self._segment_bytes:  # not first at the next event: a spool at its bound gets none
                    await self._written(self._begin_next)
                await loop.run_in_executor(thread, self._tidy)
                before = self._blocked
                if before is not None:
                    await self._written(self._probe)
                found = await loop.run_in_executor(thread, self._check_up)
                if self._blocked is before or found is not None:  # else a write failed while the check ran
                    self._blocked = found

    def close(self) -> None:
        """Close the spool; what was put before is in it. A second time does nothing."""
        if self._file == _CLOSED:
            return
        if self._writer_thread is not None:
            self._writer_thread.shutdown()
        batch, self._pending = self._pending, []
        self.file.grown(self._written_end)
        if batch:  # their requests were cut off
            error = self._write([event for event, _ in batch])
            if error is not None:
                log.error("%d events are only in their slots until the next start: %s", len(batch), error)
        self._tidy()
        os.close(self._file)
        self._file = _CLOSED
        self.file.close()

    def _flush(self) -> None:
        batch, self._pending = self._pending, []
        if not batch:  # `close` has written it
            self._flushing = False
            return
        events = [event for event, _ in batch]
        if self._writer_thread is None:
            self._tell(batch, self._write(events))
        else:
            write = self._running_loop().run_in_executor(self._writer_thread, self._write, events)
            write.add_done_callback(lambda done: self._tell(batch, done.result()))

    def _write(self, events: list[bytes]) -> OSError | None:
        """Write events behind the last one, all or none."""
        first = self._written_end
        data = b"".join([segments.record(sequence, event) for sequence, event in enumerate(events, first)])
        try:
            if self._size >= self._segment_bytes:
                self._begin_segment(first)
            self._write_at(self._size, data)
            if self._is_full:
                os.fdatasync(self._file)
        except OSError as error:
            with suppress(OSError):  # then it is written over by the next, or billed at a start: their keys are unique
                os.ftruncate(self._file, self._size)
            return error
        self._size += len(data)
        self._written_end = first + len(events)
        return None

    def _write_at(self, place: int, data: bytes) -> None:
        written = os.pwrite(self._file, data, place)
        while written < len(data):  # a disk that fills up takes a part first, and then says so
            written += os.pwrite(self._file, memoryview(data)[written:], place + written)

    def _begin_segment(self, first: int) -> None:
        fresh = self.file.segments.begin(first)
        if self._is_full:
            segments.sync(self._path)
        os.close(self._file)
        self._file, self._size = fresh, 0

    def _tell(self, batch: list[tuple[bytes, Told]], error: OSError | None) -> None:
        first = self.file.end
        if error is None:
            self.file.grown(first + len(batch))
        else:
            self._blocked = f"the spool cannot be written: {error.strerror}"
            log.error("%s", self._blocked)
        for sequence, (_, told) in enumerate(batch, first):
            told(sequence if error is None else SpoolUnavailableError(str(error)))
        self._flushing = bool(self._pending)
        if self._flushing:
            self._running_loop().call_soon(self._flush)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = self._loop
        if loop is None:  # asyncio itself asks the system for the process's id before it says which one runs
            loop = self._loop = asyncio.get_running_loop()
        return loop

    async def _written(self, change: Callable[[], None]) -> None:
        """Make a change where events are written, so that no event is written meanwhile."""
        if self._writer_thread is None:
            change()
        else:
            await self._running_loop().run_in_executor(self._writer_thread, change)

    def _probe(self) -> None:
        """Find out whether the disk takes something again."""
        try:
            self._write_at(self._size, bytes(_PROBE_BYTES))  # no record begins like that
            self._cannot_write = None
        except OSError as error:
            self._cannot_write = error.strerror
        with suppress(OSError):
            os.ftruncate(self._file, self._size)

    def _begin_next(self) -> None:
        """Begin the next segment ahead of its first event."""
        try:
            self._begin_segment(self._written_end)
        except OSError as error:
            log.warning("spool: the next segment cannot be begun: %s", error)

    def _tidy(self) -> None:
        """Let rows go and keep the mark, where either has moved; what fails is tried again a second later."""
        before, mark = self._trim_before, self._acknowledged  # before the places: what is below it has one
        changes = self.file.placed.changes
        try:
            if before > self.file.begin() or mark > self.file.acknowledged_through or changes > self._kept_changes:
                self.file.drop(before, mark)
                self._kept_changes = changes
            else:
                self.file.segments.drop(self.file.begin())
        except OSError as error:
            log.warning("spool: tidying failed: %s", error)

    def _check_up(self) -> str | None:
        """Have what was written reach the disk, and find out whether events can be kept; in a thread of its own."""
        try:
            if not self._is_full:
                self._synced = self.file.segments.sync(self._synced)
            used = self.file.segments.size_bytes()
            left = shutil.disk_usage(self._path).free
        except OSError as error:
            return f"the spool cannot be written: {error.strerror}"
        self.filling = used > _FILLING * self._max_bytes
        if self._blocked is not None and self._cannot_write is not None:
            return f"the spool cannot be written: {self._cannot_write}"
        if used > self._max_bytes:
            return f"the spool holds its {self._max_bytes} bytes"
        if left < _LEAST_FREE_BYTES:
            return f"the spool's disk is full ({os.strerror(errno.ENOSPC)})"
        return None


def open_folder(folder: Path, *, sync: SpoolSync, max_bytes: int) -> tuple[Spool, list[SpoolFile]]:
    """Open the folder's spool of this boot, made where there is none, and the older files that are to be drained.

    The caller holds the data directory's lock: no other process writes any of them.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    spool_file.sweep(folder)
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
    return Spool(current or spool_file.create(folder, boot), sync=sync, max_bytes=max_bytes), older


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
