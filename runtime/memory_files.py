"""Large bytes outside the heap: written piece by piece, read by a process beside by their path, sent as they lie.

Costs a system call a piece, and no copy of the whole: one of 16 MiB keeps an event loop for 7 ms, or 17 where it faults
its pages in. Files in memory (memfd_create(2)) lie on no disk, count as this process's memory, and go with their last
reader; other than `/dev/shm` they have no size of their own.
"""

import mmap
import os
from collections.abc import Sequence
from io import FileIO

HEAP_BYTES = 1024 * 1024
"""What grows beyond this is moved to a file."""

Content = bytes | mmap.mmap
"""Whole bytes, in the heap or in a file."""


class MemoryFile:
    """One such file. Holds a descriptor until it becomes `content`, or nobody holds it."""

    def __init__(self) -> None:
        """Raise OSError where there can be none: not on Linux, or too many descriptors."""
        self._fd = -1
        try:
            self._fd = os.memfd_create("tollgate")
        except AttributeError:
            raise OSError("this system has no files in memory") from None
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __del__(self) -> None:
        self.close()

    @property
    def place(self) -> "FilePlace":
        """Return where other processes of this user find it, while it is held here."""
        return FilePlace(f"/proc/{os.getpid()}/fd/{self._fd}", os.fstat(self._fd).st_ino)

    def append(self, piece: bytes) -> None:
        """Write what comes next."""
        _write(self._fd, piece)
        self._size += len(piece)

    def content(self) -> mmap.mmap:
        """Return the bytes, also those that another process has written; nothing more can be done with the file.

        Raise ValueError where there are none.
        """
        try:
            return mmap.mmap(self._fd, 0, prot=mmap.PROT_READ)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FilePlace:
    """Where a file of another process is, to be opened there.

    Whoever gave it may be gone, and its descriptor another file's: the inode tells.
    """

    def __init__(self, path: str, inode: int) -> None:
        self._path = path
        self._inode = inode

    def read(self) -> bytes:
        """Return all of it. Raise OSError where it is not there, or was given up."""
        with self._open("rb") as file:
            data = file.read()
        if not data:
            raise FileNotFoundError("it was given up")
        return data

    def give_up(self) -> None:
        """Free its memory from here: that takes the system a millisecond or two for 16 MiB."""
        with self._open("r+b") as file:
            file.truncate()

    def write(self, content: bytes) -> None:
        """Replace all of it. Raise OSError."""
        with self._open("r+b") as file:
            file.truncate()
            _write(file.fileno(), content)

    def _open(self, mode: str) -> FileIO:
        file = FileIO(self._path, mode)
        if os.fstat(file.fileno()).st_ino == self._inode:
            return file
        file.close()
        raise FileNotFoundError("its holder has let go of it")


Body = bytes | MemoryFile
"""Whole bytes that have come piece by piece: few in the heap, more in a file."""


def spilled(pieces: Sequence[bytes]) -> MemoryFile | None:
    """Return a file of what has come; None where there can be none, so that it has to stay in the heap."""
    try:
        file = MemoryFile()
    except OSError:
        return None
    for piece in pieces:
        file.append(piece)
    return file


def passed(body: Content, start: int, end: int) -> None:
    """Unmap a stretch, from a page's begin, that is not needed soon; it stays in its file, to be read again.

    The whole unmapped at once, at its end, takes an event loop one to two milliseconds for 16 MiB.
    """
    if isinstance(body, mmap.mmap):
        body.madvise(mmap.MADV_DONTNEED, start, end - start)


def content(whole: Body) -> Content:
    """Return the bytes of what was gathered."""
    return whole.content() if isinstance(whole, MemoryFile) else whole


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
