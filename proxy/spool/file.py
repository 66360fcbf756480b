"""One spool file: its form, and how it is read (counting 1).

Never writes an event: that is `proxy.spool.writer`, for the one file of this boot.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple, TypeVar

from domain.sources import EventBatch
from runtime import ids
from schemas.usage import Producer, UsageDraft, UsageEvent

LANE = "spool"
"""All spools of one data directory are counted in one order: only one of them is written at a time."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (sequence INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS file (instance TEXT NOT NULL, boot_id TEXT NOT NULL, probed_at REAL NOT NULL DEFAULT 0,
    acknowledged_through INTEGER NOT NULL DEFAULT 0);
"""
_SUMS = """
SELECT json_extract(json, '$.workspaceId'), substr(json_extract(json, '$.timestamp'), 1, 10), count(*),
    sum(json_extract(json, '$.tokens.inputTokens')), sum(json_extract(json, '$.tokens.outputTokens'))
FROM (SELECT CAST(body AS TEXT) AS json FROM event WHERE sequence > ? AND sequence <= ?)
GROUP BY 1, 2 ORDER BY 1, 2
"""
_KEEP_MARK = "UPDATE file SET acknowledged_through = ? WHERE acknowledged_through < ?"
FOLDER = "spool"
"""Where spools lie in a data directory."""
SUFFIX = ".spool"
_DRAINED = "drained"
_MOST_DRAINED = 100
_REMEMBERED = 4096
Row = TypeVar("Row")


class Sums(NamedTuple):
    """What a stretch of a file holds for one workspace and UTC day."""

    workspace_id: str
    day: str
    requests: int
    input_tokens: int
    output_tokens: int


class SpoolFile:
    """One spool file as its readers see it: a partition of usage events whose offsets are its sequences."""

    lane = LANE
    index = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, check_same_thread=False)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool-read")
        self._waiters: dict[asyncio.Future[None], int] = {}
        """Who waits, and for an event at which offset."""
        self._decoded: dict[int, UsageEvent] = {}
        self.instance, self.boot_id = _identity(self._connection)
        self.topic = f"spool/{self.instance}"
        self._producer = b',"producer":{"instance":"%s","sequence":%%d}}' % self.instance.encode()
        self.first_offset = 1
        self.end = last_sequence(self._connection) + 1
        """One past the newest event's sequence."""
        self.acknowledged_through = _mark(self._connection)
        """Up to here the topic was known to hold every event when the file was opened; 0: nothing is known."""

    async def read(self, offset: int, limit: int) -> EventBatch:
        """Return at most `limit` events from `offset` on, in order; none where there are none yet."""
        events = await asyncio.get_running_loop().run_in_executor(self._thread, self._events, offset, limit)
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
        """Remove the rows below `before`, and keep the mark, in a file that nobody writes to any more."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._let_go, before, acknowledged_through)

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

    def remaining(self) -> Iterator[UsageEvent]:
        """Return every event that the file still holds, in order, for a start's sums."""
        offset = self.first_offset
        while events := self._events(offset, 1000):
            yield from events
            offset = events[-1].producer.sequence + 1

    def begin(self) -> int:
        """Return the lowest sequence there still is; `end` where there is no row."""
        lowest: int | None = self._connection.execute("SELECT min(sequence) FROM event").fetchone()[0]
        return self.end if lowest is None else lowest

    def is_empty(self) -> bool:
        """Say whether no row is left."""
        return self._connection.execute("SELECT 1 FROM event LIMIT 1").fetchone() is None

    def close(self) -> None:
        """Wait for a read under way, then close."""
        self._thread.shutdown()
        self._connection.close()

    def remove(self) -> None:
        """Delete a drained file; its instance joins the list of those that are drained.

        Raise OSError where the disk refuses: then the file is there and open, and the call may be repeated.
        """
        if drained_instances(self.path.parent).get(self.instance) != self.end - 1:  # else: repeated
            with self.path.with_name(_DRAINED).open("a", encoding="ascii") as drained:
                drained.write(f"\n{self.instance} {self.end - 1}\n")  # the line before may be torn
        self.path.unlink(missing_ok=True)
        self.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _events(self, offset: int, limit: int) -> list[UsageEvent]:
        return [self._event(sequence, body) for sequence, body in self._rows(offset, limit)]

    def _formed(self, offset: int, limit: int, form: Callable[[int, bytes], Row]) -> list[Row]:
        return [form(sequence, self._numbered(sequence, body)) for sequence, body in self._rows(offset, limit)]

    def _rows(self, offset: int, limit: int) -> sqlite3.Cursor:
        return self._connection.execute(
            "SELECT sequence, body FROM event WHERE sequence >= ? ORDER BY sequence LIMIT ?", (offset, limit)
        )

    def _numbered(self, sequence: int, body: bytes) -> bytes:
        return body[:-1] + self._producer % sequence

    def _sums(self, after: int, through: int) -> list[Sums]:
        # a connection of its own: the publisher reads on meanwhile, and SQLite lets the interpreter go
        with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return [Sums(*row) for row in connection.execute(_SUMS, (after, through))]

    def _let_go(self, before: int, acknowledged_through: int) -> None:
        with self._connection:
            self._connection.execute("DELETE FROM event WHERE sequence < ?", (before,))
            keep_mark(self._connection, acknowledged_through)

    def _event(self, sequence: int, body: bytes) -> UsageEvent:
        """Decode a row, once for both readers: metering comes first, intake takes what it left."""
        event = self._decoded.pop(sequence, None)
        if event is None:
            event = UsageEvent.model_validate_json(self._numbered(sequence, body))
            if len(self._decoded) >= _REMEMBERED:
                self._decoded.clear()
            self._decoded[sequence] = event
        return event


def create(folder: Path, boot: str) -> Path:
    """Make a file of a new instance; return its path."""
    instance = ids.mint()
    fresh = folder / f"{instance}.new"
    connection = sqlite3.connect(fresh, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(_SCHEMA)
    connection.execute("INSERT INTO file (instance, boot_id) VALUES (?, ?)", (instance, boot))
    connection.close()
    return fresh.rename(folder / f"{instance}{SUFFIX}")  # a file that has the ending is whole


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
    event = UsageEvent.model_validate_json(body)
    return event.timestamp + timedelta(milliseconds=event.latency_ms or 0)


def _identity(connection: sqlite3.Connection) -> tuple[str, str]:
    connection.execute("PRAGMA wal_autocheckpoint=0")
    instance, boot = connection.execute("SELECT instance, boot_id FROM file").fetchone()
    return instance, boot


def _mark(connection: sqlite3.Connection) -> int:
    mark: int = connection.execute("SELECT acknowledged_through FROM file").fetchone()[0]
    return mark


def keep_mark(connection: sqlite3.Connection, acknowledged_through: int) -> None:
    """Note up to where the topic holds every event, so that a restart repeats little; never back."""
    connection.execute(_KEEP_MARK, (acknowledged_through, acknowledged_through))


def last_sequence(connection: sqlite3.Connection) -> int:
    """Return the highest sequence ever used in a file, 0 where none was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
    return row[0] if row else 0
