"""One spool file: its form, and how it is read (design 3.1).

Never writes an event: that is `proxy.spool`, for the one file of this boot.
"""

import asyncio
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runtime import ids
from schemas.topics import UsageBatch
from schemas.usage import Producer, UsageDraft, UsageEvent

LANE = "spool"
"""All spools of one data directory are counted in one order: only one of them is written at a time."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS event (sequence INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS file (instance TEXT NOT NULL, boot_id TEXT NOT NULL, probed_at REAL NOT NULL DEFAULT 0);
"""
FOLDER = "spool"
"""Where spools lie in a data directory."""
SUFFIX = ".spool"
_REMEMBERED = 4096


class SpoolFile:
    """One spool file as its readers see it: a partition of usage events whose offsets are its sequences."""

    lane = LANE
    partition = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, check_same_thread=False)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool-read")
        self._waiters: dict[asyncio.Future[None], int] = {}
        """Who waits, and for an event at which offset."""
        self._decoded: dict[int, UsageEvent] = {}
        self.instance, self.boot_id = _identity(self._connection)
        self.topic = f"spool/{self.instance}"
        self.first_offset = 1
        self.end = last_sequence(self._connection) + 1
        """One past the newest event's sequence."""

    async def read(self, offset: int, limit: int) -> UsageBatch:
        """Give at most `limit` events from `offset` on, in order; none where there are none yet."""
        events = await asyncio.get_running_loop().run_in_executor(self._thread, self._events, offset, limit)
        next_offset = events[-1].producer.sequence + 1 if events else offset
        return UsageBatch(self.topic, self.partition, self.lane, offset, next_offset, tuple(events))

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
        """Give every event that the file still holds, in order, for a start's sums."""
        offset = self.first_offset
        while events := self._events(offset, 1000):
            yield from events
            offset = events[-1].producer.sequence + 1

    def begin(self) -> int:
        """Give the lowest sequence there still is; `end` where there is no row."""
        lowest: int | None = self._connection.execute("SELECT min(sequence) FROM event").fetchone()[0]
        return self.end if lowest is None else lowest

    def is_empty(self) -> bool:
        """Say whether no row is left."""
        return self._connection.execute("SELECT 1 FROM event LIMIT 1").fetchone() is None

    async def empty(self) -> None:
        """Remove every row of a file that nobody writes to any more."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._empty)

    def _empty(self) -> None:
        with self._connection:
            self._connection.execute("DELETE FROM event")

    def close(self) -> None:
        """Wait for a read under way, then close."""
        self._thread.shutdown()
        self._connection.close()

    def remove(self) -> None:
        """Delete a drained file."""
        self.close()
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    def _events(self, offset: int, limit: int) -> list[UsageEvent]:
        rows = self._connection.execute(
            "SELECT sequence, body FROM event WHERE sequence >= ? ORDER BY sequence LIMIT ?", (offset, limit)
        )
        return [self._event(sequence, body) for sequence, body in rows]

    def _event(self, sequence: int, body: bytes) -> UsageEvent:
        """Decode a row, once for both readers: metering comes first, intake takes what it left."""
        event = self._decoded.pop(sequence, None)
        if event is None:
            producer = b',"producer":{"instance":"%s","sequence":%d}}' % (self.instance.encode(), sequence)
            event = UsageEvent.model_validate_json(body[:-1] + producer)
            if len(self._decoded) >= _REMEMBERED:
                self._decoded.clear()
            self._decoded[sequence] = event
        return event


def create(folder: Path, boot: str) -> Path:
    """Make a file of a new instance; give its path."""
    instance = ids.mint()
    fresh = folder / f"{instance}.new"
    connection = sqlite3.connect(fresh, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.executescript(_SCHEMA)
    connection.execute("INSERT INTO file (instance, boot_id) VALUES (?, ?)", (instance, boot))
    connection.close()
    return fresh.rename(folder / f"{instance}{SUFFIX}")  # a file that has the ending is whole


def numbered(draft: UsageDraft, instance: str, sequence: int) -> UsageEvent:
    """Give the event that a draft has become."""
    producer = Producer(instance=instance, sequence=sequence)
    return UsageEvent.model_construct(None, **dict(draft), producer=producer)


def _identity(connection: sqlite3.Connection) -> tuple[str, str]:
    connection.execute("PRAGMA wal_autocheckpoint=0")
    instance, boot = connection.execute("SELECT instance, boot_id FROM file").fetchone()
    return instance, boot


def last_sequence(connection: sqlite3.Connection) -> int:
    """Give the highest sequence ever used in a file, 0 where none was."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'event'").fetchone()
    return row[0] if row else 0
