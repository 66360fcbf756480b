"""One spool: what it is called, and how it is read (counting 1).

A spool is a folder: its segments, `identity` (instance and boot, written once) and `state` (the first sequence that is
still wanted, up to which one the topic holds every event, and where: `proxy.spool.placed`), which is replaced whole.
"""

import asyncio
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import islice, takewhile
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from domain import sources
from domain.sources import EventBatch
from proxy.spool import segments
from proxy.spool.placed import Placed
from proxy.spool.recent import Recent
from proxy.spool.segments import Segments
from proxy.spool.spreads import Spreads
from runtime import ids
from schemas import spooled
from schemas.spooled import SpooledEvent
from schemas.usage import Producer, UsageDraft, UsageEvent

FOLDER = "spool"
"""Where spools lie in a data directory."""
SUFFIX = ".spool"
_GONE = ".gone"
_NEW = ".new"
_IDENTITY = "identity"
_STATE = "state"
_DRAINED = "drained"
_MOST_DRAINED = 100
_MOST_TRIES = 5
Row = TypeVar("Row")


class SpoolFileError(Exception):
    """A spool cannot be read; the message says which and why."""


class Sums(NamedTuple):
    """What a stretch of a spool holds for one workspace and UTC day."""

    workspace_id: str
    day: str
    requests: int
    input_tokens: int
    output_tokens: int


class _Tokens(msgspec.Struct, rename="camel"):
    input_tokens: int
    output_tokens: int


class _Counted(msgspec.Struct, rename="camel"):
    """What of an event is summed up."""

    workspace_id: str
    timestamp: str
    tokens: _Tokens


class SpoolFile:
    """One spool as its readers see it: a partition of usage events whose offsets are its sequences."""

    index = 0

    def __init__(self, path: Path) -> None:
        """Raise SpoolFileError, and FileNotFoundError where it is gone."""
        self.path = path
        self.instance, self.boot_id = _identity(path)
        self.segments, self.end, self.written_bytes = _open(path)
        begin, self.acknowledged_through, self.placed = _state(path)
        self.spreads = Spreads(path)
        self._begin = min(max(begin, self.segments.first), self.end)  # a power cut may have taken the last rows
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool-read")
        self._waiters: dict[asyncio.Future[None], int] = {}
        """Who waits, and for an event at which offset."""
        self._recent = Recent()
        self.lane = self.topic = sources.SPOOL + self.instance
        self._producer = b',"producer":{"instance":"%s","sequence":%%d}}' % self.instance.encode()
        self.first_offset = 1

    async def read(self, offset: int, limit: int) -> EventBatch:
        """Return at most `limit` events from `offset` on, in order; none where there are none yet."""
        events = self._recent.take(offset, limit)
        after = offset + len(events)
        if len(events) < limit and after < self.end:
            loop = asyncio.get_running_loop()
            read = await loop.run_in_executor(self._thread, self._events, after, limit - len(events))
            self._recent.keep(read)
            events += read
        next_offset = events[-1].producer.sequence + 1 if events else offset
        return EventBatch(self.topic, self.index, self.lane, offset, next_offset, tuple(events))

    async def rows(self, offset: int, limit: int, form: Callable[[int, bytes], Row]) -> list[Row]:
        """Return at most `limit` rows from `offset` on as `form` makes them of (sequence, event as JSON).

        `form` runs in the reading thread.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._formed, offset, limit, form)

    async def sums(self, after: int, through: int) -> list[Sums]:
        """Sum up the events above `after` and up to `through`, per workspace and UTC day."""
        return await asyncio.to_thread(self._sums, after, through)

    async def let_go(self, before: int, acknowledged_through: int) -> None:
        """Remove the rows below `before`, and keep the mark, in a spool that nobody writes to any more."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.drop, before, acknowledged_through)

    def drop(self, before: int, acknowledged_through: int) -> None:
        """Remove the rows below `before`, and note up to where the topic holds every event; never back. Raise OSError.

        Their bytes go with the last row of their segment.
        """
        begin = max(self._begin, min(before, self.end))
        mark = max(self.acknowledged_through, acknowledged_through)
        fresh = self.path / f"{_STATE}{_NEW}"
        self.placed.forget(begin)
        segments.write_private(fresh, f"{begin} {mark}\n{self.placed.saved()}".encode())
        fresh.replace(self.path / _STATE)
        self._begin, self.acknowledged_through = begin, mark
        self.segments.drop(begin)

    async def wait(self, offset: int, timeout_s: float) -> None:
        """Return when there is an event at `offset` or later, at the latest after `timeout_s`."""
        if offset < self.end:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = offset
        try:
            async with asyncio.timeout(timeout_s):
                await waiter
        except TimeoutError:
            pass
        finally:
            del self._waiters[waiter]

    def grown(self, end: int) -> None:
        """Tell the readers that the file now ends at `end`."""
        self.end = end
        for waiter, offset in self._waiters.items():
            if offset < end and not waiter.done():
                waiter.set_result(None)

    def remaining(self) -> Iterator[SpooledEvent]:
        """Return every event that the spool still holds, in order, for a start's sums."""
        for sequence, body in self._rows(self._begin):
            yield spooled.decode(self._numbered(sequence, body))

    def begin(self) -> int:
        """Return the lowest sequence there still is; `end` where there is no row."""
        return self._begin

    @property
    def is_unplaced(self) -> bool:
        """Whether a proxy of the version before has published rows of it: it did not keep where they are."""
        return self.acknowledged_through >= self._begin and self.placed.through == 0

    def is_empty(self) -> bool:
        """Say whether no row is left."""
        return self._begin >= self.end

    def close(self) -> None:
        """Wait for a read under way, then close."""
        self._thread.shutdown()

    def remove(self) -> None:
        """Delete a drained spool; its instance joins the list of those that are drained.

        Raise OSError where the disk refuses: then the spool is there and open, and the call may be repeated.
        """
        if drained_instances(self.path.parent).get(self.instance) != self.end - 1:  # else: repeated
            line = f"\n{self.instance} {self.end - 1}\n"  # the one before may be torn
            segments.write_private(self.path.with_name(_DRAINED), line.encode(), more=True)
        gone = self.path.with_suffix(_GONE)
        if self.path.exists():
            self.path.rename(gone)  # at once: half a spool must not be met at a start
        self.close()
        shutil.rmtree(gone, ignore_errors=True)

    def _events(self, offset: int, limit: int) -> list[SpooledEvent]:
        rows = islice(self._rows(offset), limit)
        return [spooled.decode(self._numbered(sequence, body)) for sequence, body in rows]

    def _formed(self, offset: int, limit: int, form: Callable[[int, bytes], Row]) -> list[Row]:
        rows = islice(self._rows(offset), limit)
        return [form(sequence, self._numbered(sequence, body)) for sequence, body in rows]

    def _rows(self, offset: int) -> Iterator[tuple[int, bytes]]:
        end = self.end  # behind it may stand what is written and not yet durable
        return takewhile(lambda row: row[0] < end, self.segments.scan(max(offset, self._begin)))

    def _numbered(self, sequence: int, body: bytes) -> bytes:
        return body[:-1] + self._producer % sequence

    def _sums(self, after: int, through: int) -> list[Sums]:
        sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        own = Segments(self.path)  # the publisher reads on meanwhile
        for _, body in takewhile(lambda row: row[0] <= through, own.scan(max(after + 1, self._begin))):
            event = _counted.decode(body)
            for place, number in enumerate((1, event.tokens.input_tokens, event.tokens.output_tokens)):
                sums[event.workspace_id, event.timestamp[:10]][place] += number
        return [Sums(*owner, *figures) for owner, figures in sorted(sums.items())]


_counted = msgspec.json.Decoder(_Counted)


def create(folder: Path, boot: str) -> Path:
    """Make a spool of a new instance; return its path. Raise OSError."""
    instance = ids.mint()
    fresh = folder / f"{instance}{_NEW}"
    fresh.mkdir(mode=0o700)
    identity = fresh / _IDENTITY
    segments.write_private(identity, f"{instance}\n{boot}\n".encode())
    segments.sync(identity)
    os.close(Segments(fresh).begin(1))
    segments.sync(fresh)
    path = fresh.rename(folder / f"{instance}{SUFFIX}")  # a folder that has the ending is whole
    segments.sync(folder)
    return path


def sweep(folder: Path) -> None:
    """Remove what a process left that died while it made or removed a spool."""
    for path in (*folder.glob(f"*{_GONE}"), *folder.glob(f"*{_NEW}")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def drained_instances(folder: Path) -> dict[str, int]:
    """Return the latest instances of a folder whose files were drained and removed, each with its last sequence.

    A reconciliation meets their events in the ledger, and asks who answers for them.
    """
    try:
        lines = (folder / _DRAINED).read_text(encoding="ascii").split("\n")
    except FileNotFoundError:
        return {}
    pairs = [line.split(" ") for line in [line for line in lines if line][-_MOST_DRAINED:]]
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}  # torn by a power cut


def numbered(draft: UsageDraft, instance: str, sequence: int) -> UsageEvent:
    """Return the event that a draft has become."""
    producer = Producer(instance=instance, sequence=sequence)
    return UsageEvent.model_construct(None, **dict(draft), producer=producer)


def spooled_at(_sequence: int, body: bytes) -> datetime:
    """Tell when a row was written: at its request's end."""
    event = spooled.decode(body)
    return event.timestamp + timedelta(milliseconds=event.latency_ms or 0)


def _identity(path: Path) -> tuple[str, str]:
    if path.is_file():
        raise SpoolFileError(f"{path.name} is no spool of this version: let the version that made it drain it first")
    try:
        instance, boot = (path / _IDENTITY).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        if not path.exists():
            raise
        raise SpoolFileError(f"{path.name} does not say whose it is") from None
    except (OSError, ValueError) as error:
        raise SpoolFileError(f"{path.name} does not say whose it is: {error}") from error
    return instance, boot


def _open(path: Path) -> tuple[Segments, int, int]:
    """Return the segments, one past the last sequence, and where its record ends."""
    for _ in range(_MOST_TRIES):
        found = Segments(path)
        try:
            return found, *found.end()
        except FileNotFoundError:  # its process has gone on to another one since the list was taken
            continue
        except IndexError:
            break
    raise SpoolFileError(f"{path.name} has no segment that stays")


def _state(path: Path) -> tuple[int, int, Placed]:
    """Return the first sequence that is wanted, the mark and the places; what a power cut took is found out again."""
    try:
        first, *lines = (path / _STATE).read_text(encoding="ascii").splitlines()
        begin, mark = first.split()
        return int(begin), int(mark), Placed(lines)
    except (FileNotFoundError, ValueError):
        return 0, 0, Placed()
