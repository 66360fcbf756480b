"""How a spool lies on the disk: a folder of segments, files that only grow (counting 1).

Never returns what was written in part. What was written is not changed.

A segment is named after the sequence that it begins with. A record of it is a head (sequence, length, checksum of both
and of what follows), then an event as JSON. A record whose checksum is wrong is passed over where a whole one follows,
so that its number is missing and is reported as a gap; behind the last whole record there is only what a power cut or a
full disk left of a write. Reading costs about a microsecond a record, writing as much.
"""

import logging
import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

SUFFIX = ".log"
_TORN = ".torn"
_START = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_HEAD = struct.Struct("<QII")
_MOST_BYTES = 1024 * 1024
"""Of one event: far above any; a length beyond it was not written by us."""
_READ_BYTES = 64 * 1024
_INDEXED_EVERY_BYTES = 16 * 1024
"""From the next indexed place below it, any record is found by reading so much at most."""

log = logging.getLogger(__name__)


class Record(NamedTuple):
    """One whole record."""

    sequence: int
    event: bytes
    end: int
    """Where in its segment the next one begins."""


def record(sequence: int, event: bytes) -> bytes:
    """Return the bytes of a record."""
    start = _START.pack(sequence, len(event))
    return b"%b%b%b" % (start, _CHECKSUM.pack(crc32(event, crc32(start))), event)


def records(path: Path, place: int = 0) -> Iterator[Record]:
    """Return the whole records of a segment from the one at `place` on. Raise FileNotFoundError."""
    damaged = 0
    with path.open("rb", buffering=0) as file:
        file.seek(place)
        block, at = file.read(_READ_BYTES), 0
        while True:
            if len(block) - at < _HEAD.size:
                block, at = block[at:] + file.read(_READ_BYTES), 0
                if len(block) < _HEAD.size:
                    return
            sequence, size, checksum = _HEAD.unpack_from(block, at)
            if not 0 < size <= _MOST_BYTES:
                return
            begin, end = at + _HEAD.size, at + _HEAD.size + size
            if len(block) < end:
                block = block[at:] + file.read(max(_READ_BYTES, size))
                at, begin, end = 0, _HEAD.size, _HEAD.size + size
            event = block[begin:end]
            if len(event) == size and crc32(event, crc32(block[at : at + _START.size])) == checksum:
                if damaged:
                    log.error("%s: %d records before sequence %d cannot be read", path, damaged, sequence)
                    damaged = 0
                yield Record(sequence, event, place + _HEAD.size + size)
            else:
                damaged += 1
            place += _HEAD.size + len(event)
            at = begin + len(event)


class Segments:
    """The segments of one spool. To be read by one thread at a time, while another may write and a third may drop."""

    def __init__(self, folder: Path) -> None:
        """Raise OSError."""
        self._folder = folder
        self._firsts = sorted(int(path.stem) for path in folder.iterdir() if path.suffix == SUFFIX)
        self._index: dict[int, list[tuple[int, int]]] = {first: [(first, 0)] for first in self._firsts}
        """Of each segment some sequences and where their records begin, ascending."""

    @property
    def first(self) -> int:
        """Return the sequence that the oldest segment begins with. Raise IndexError where there is none."""
        return self._firsts[0]

    def path(self, first: int) -> Path:
        """Return the file of the segment that begins with `first`."""
        return self._folder / f"{first:020d}{SUFFIX}"

    @property
    def newest(self) -> Path:
        """Return the file that is written to. Raise IndexError where there is none."""
        return self.path(self._firsts[-1])

    def scan(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Return (sequence, event) of every whole record from `offset` on."""
        firsts = list(self._firsts)
        for first in firsts[max(0, bisect_right(firsts, offset) - 1) :]:
            index = self._index.get(first, [])
            at = bisect_right(index, offset, key=lambda entry: entry[0]) - 1
            with suppress(FileNotFoundError):  # dropped since the list was taken
                for sequence, event, end in records(self.path(first), index[at][1] if index else 0):
                    if index and end - index[-1][1] >= _INDEXED_EVERY_BYTES:
                        index.append((sequence + 1, end))
                    if sequence >= offset:
                        yield sequence, event

    def end(self) -> tuple[int, int]:
        """Return one past the last sequence, and where in the newest segment its record ends.

        Raise IndexError where there is no segment, FileNotFoundError where the newest was dropped meanwhile.
        """
        newest = self._firsts[-1]
        sequence, place = newest - 1, 0
        for each in records(self.path(newest)):
            sequence, place = each.sequence, each.end
        return sequence + 1, place

    def cut(self, place: int) -> None:
        """Take from the newest segment what lies behind `place`: a write that did not succeed. It is kept aside."""
        path = self.newest
        rest = path.read_bytes()[place:]
        if rest:
            log.warning("%s: %d bytes of a write that was interrupted are put aside", path, len(rest))
            write_private(path.with_suffix(_TORN), rest)
            os.truncate(path, place)

    def begin(self, first: int) -> int:
        """Begin a segment; return its file, open for writing. Its name is not on the disk yet. Raise OSError."""
        file = os.open(self.path(first), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._index[first] = [(first, 0)]
        self._firsts.append(first)
        return file

    def drop(self, before: int) -> None:
        """Remove the segments that hold nothing from `before` on; never the newest. Raise OSError."""
        while len(self._firsts) > 1 and self._firsts[1] <= before:
            first = self._firsts[0]
            self.path(first).unlink(missing_ok=True)
            self.path(first).with_suffix(_TORN).unlink(missing_ok=True)
            del self._firsts[0]
            self._index.pop(first, None)

    def size_bytes(self) -> int:
        """Return what the segments take. Raise OSError."""
        size = 0
        for first in list(self._firsts):
            with suppress(FileNotFoundError):
                size += self.path(first).stat().st_size
        return size

    def sync(self, since: int) -> int:
        """Have the segments from `since` on reach the disk; return what to begin with next time. Raise OSError."""
        firsts = [first for first in list(self._firsts) if first >= since]
        for first in firsts:
            with suppress(FileNotFoundError):
                sync(self.path(first))
        if len(firsts) > 1:  # a name is new
            sync(self._folder)
        return firsts[-1] if firsts else since


def write_private(path: Path, data: bytes, *, more: bool = False) -> None:
    """Write a file, or behind what one holds, that is its owner's alone, whatever the umask. Raise OSError."""
    behind = os.O_APPEND if more else os.O_TRUNC
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | behind, 0o600), "wb") as file:
        file.write(data)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, reach the disk. Raise OSError."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
