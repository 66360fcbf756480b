"""Bytes outside the heap: what is written is what is read, here and by their place, and nothing of another's file."""

import os
from pathlib import Path

import pytest

from runtime import memory_files
from runtime.memory_files import MemoryFile


def test_what_was_written_in_pieces_is_its_content() -> None:
    file = memory_files.spilled([b"one", b"two"])
    assert file is not None
    file.append(b"three")
    assert len(file) == 11
    assert file.place.read() == b"onetwothree"
    assert file.content()[:] == b"onetwothree"


def test_what_another_writes_is_its_content() -> None:
    file = MemoryFile()
    file.append(b"a long beginning")
    file.place.write(b"short")
    assert file.content()[:] == b"short"


def test_what_was_given_up_is_no_empty_body() -> None:
    """Work that is done again, because its end was not told, must not take nothing for what had come."""
    file = MemoryFile()
    file.append(b"x")
    file.place.give_up()
    with pytest.raises(FileNotFoundError):
        file.place.read()


def test_a_place_whose_descriptor_is_another_files_is_empty() -> None:
    """A request may go while its body is still to be read beside; the next one has its number."""
    gone = MemoryFile()
    gone.append(b"of one lab")
    place = gone.place
    gone.close()
    with pytest.raises(FileNotFoundError):
        place.read()
    other = MemoryFile()
    other.append(b"of another")
    assert other.place._path == place._path
    for use in (place.read, lambda: place.write(b"x")):
        with pytest.raises(FileNotFoundError):
            use()
    assert other.content()[:] == b"of another"


def test_what_was_passed_is_mapped_no_more_and_can_be_read_again() -> None:
    def mapped_kib() -> int:
        (ours,) = Path("/proc/self/smaps").read_text().split("memfd:tollgate (deleted)")[1:]
        return int(ours.split("Rss:")[1].split()[0])

    file = MemoryFile()
    file.append(bytes(range(256)) * 4096)
    content = file.content()
    whole = content[:]
    assert mapped_kib() == 1024
    memory_files.passed(content, 0, 512 * 1024)
    assert mapped_kib() == 512
    assert content[:] == whole
    memory_files.passed(whole, 0, 1024)  # what lies in the heap stays as it is


def test_nothing_stays_open() -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    file = MemoryFile()
    file.append(b"x")
    content = file.content()
    assert count() == before + 1, "the mapping has its own"
    del content, file
    dropped = MemoryFile()
    del dropped
    assert count() == before


def test_where_there_can_be_none_it_stays_in_the_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    assert memory_files.spilled([b"x"]) is None
