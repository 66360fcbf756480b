"""Remembers what is in flight in a memory-mapped file, so that a killed gateway's requests can still be billed.

The operating system keeps the pages when the process dies, so nothing waits for the disk (counting 2).

A slot is 24 KiB of a sparse file, of which only what is used is written: the length of what its event will need, then
that as JSON. The length is written last and cleared first, so a slot is whole or empty.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

from proxy.core.calls import SpoolUnavailableError

FILE = "in_flight"
"""The name of the slots' file in a data directory."""
SLOT_BYTES = 24 * 1024
_LENGTH = struct.Struct("<I")


class Slots:
    """The slots of one proxy process: as many as it may have requests in flight."""

    def __init__(self, path: Path, *, count: int = 8192) -> None:
        self._left: dict[int, bytes] = {}
        self._most = count
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        used_before = os.fstat(self._file).st_size // SLOT_BYTES
        count = max(count, used_before)
        os.ftruncate(self._file, count * SLOT_BYTES)
        self._memory = mmap.mmap(self._file, count * SLOT_BYTES)
        self._spare = count - self._most
        """How many of the slots are not to be used: the file of an earlier process may have more."""
        self._on_disk = [0] * count
        """How much of each slot is known to have its place on the disk."""
        self._free = []
        for slot in range(count - 1, -1, -1):
            left = self._read(slot) if slot < used_before else b""
            if left:
                self._left[slot] = left
            else:
                self._free.append(slot)

    @property
    def in_use(self) -> int:
        """How many requests are in flight."""
        return len(self._on_disk) - len(self._free)

    @property
    def is_full(self) -> bool:
        """Whether as many requests are in flight as there may be."""
        return len(self._free) <= self._spare

    def leftovers(self) -> list[bytes]:
        """Return what a process that is gone had in flight; its slots stay taken until `forget_leftovers`."""
        return list(self._left.values())

    def forget_leftovers(self) -> None:
        """Free the slots of `leftovers`: their events are durable now."""
        for slot in self._left:
            self.close_slot(slot)
        self._left.clear()

    def open_slot(self, facts: bytes) -> int:
        """Write what a request's event will need; return the slot. Raise SpoolUnavailableError: there is no room."""
        size = _LENGTH.size + len(facts)
        if self.is_full:
            raise SpoolUnavailableError("too many requests are in flight")
        if size > SLOT_BYTES:
            raise SpoolUnavailableError("what is known of a request does not fit its slot")
        self._find_place(self._free[-1], size)
        slot = self._free.pop()
        start = slot * SLOT_BYTES + _LENGTH.size
        self._memory[start : start + len(facts)] = facts
        _LENGTH.pack_into(self._memory, start - _LENGTH.size, len(facts))
        return slot

    def close_slot(self, slot: int) -> None:
        """Free a slot: its request's event is durable, or there will be none."""
        _LENGTH.pack_into(self._memory, slot * SLOT_BYTES, 0)
        self._free.append(slot)

    def close(self) -> None:
        """Unmap the file."""
        self._memory.close()
        os.close(self._file)

    def _find_place(self, slot: int, size: int) -> None:
        # written to where the full disk has no place for it, mapped memory would kill the process
        if size > self._on_disk[slot]:
            try:
                os.posix_fallocate(self._file, slot * SLOT_BYTES, size)
            except OSError as error:
                raise SpoolUnavailableError(f"no place for a request in flight: {error.strerror}") from None
            self._on_disk[slot] = size

    def _read(self, slot: int) -> bytes:
        start = slot * SLOT_BYTES
        (length,) = _LENGTH.unpack_from(self._memory, start)
        return self._memory[start + _LENGTH.size : start + _LENGTH.size + min(length, SLOT_BYTES - _LENGTH.size)]


def peek(path: Path) -> Iterator[bytes]:
    """Return what is in flight without opening a slot's file for writing, whoever holds it; none where it is missing.

    A slot that changes hands while it is read may come out torn: the request it held has ended.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        for start in range(0, os.fstat(file).st_size, SLOT_BYTES):
            (length,) = _LENGTH.unpack(os.pread(file, _LENGTH.size, start))
            if length:
                yield os.pread(file, length, start + _LENGTH.size)
    finally:
        os.close(file)
