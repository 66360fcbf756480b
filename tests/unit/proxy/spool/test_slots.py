"""Slots survive the process that wrote them, and are whole or empty (counting 2)."""

import errno
import mmap
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.core.calls import SpoolUnavailableError
from proxy.spool.slots import SLOT_BYTES, Slots, peek

Open = Callable[[], Slots]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "in_flight"


@pytest.fixture
def start(path: Path) -> Iterator[Open]:
    """Open the file anew, as the next process would while nobody has closed it for the last one."""
    opened: list[Slots] = []

    def start() -> Slots:
        opened.append(Slots(path, count=4))
        return opened[-1]

    yield start
    for slots in opened:
        slots.close()


def test_the_next_process_finds_what_was_in_flight(start: Open) -> None:
    slots = start()
    closed, *_ = [slots.open_slot(facts) for facts in (b"one", b"two", b"three")]
    slots.close_slot(closed)
    assert sorted(start().leftovers()) == [b"three", b"two"]


def test_those_in_use_are_counted_leftovers_too(start: Open) -> None:
    start().open_slot(b"one")
    slots = start()
    assert slots.in_use == 1
    slot = slots.open_slot(b"two")
    assert slots.in_use == 2
    slots.close_slot(slot)
    slots.forget_leftovers()
    assert slots.in_use == 0


def test_leftovers_are_found_until_they_are_forgotten(start: Open) -> None:
    start().open_slot(b"one")
    assert start().leftovers() == [b"one"]
    second = start()
    second.forget_leftovers()
    assert second.leftovers() == []
    assert start().leftovers() == []


def test_leftovers_keep_their_slots(start: Open) -> None:
    for facts in (b"one", b"two"):
        start().open_slot(facts)
    slots = start()
    slots.open_slot(b"three")
    slots.open_slot(b"four")
    with pytest.raises(SpoolUnavailableError, match="too many"):
        slots.open_slot(b"five")
    assert sorted(slots.leftovers()) == [b"one", b"two"]
    slots.forget_leftovers()
    slots.open_slot(b"five")
    assert sorted(start().leftovers()) == [b"five", b"four", b"three"]


def test_a_slot_that_is_used_again_shows_nothing_of_the_last_one(start: Open) -> None:
    slots = start()
    slots.close_slot(slots.open_slot(b"a long one"))
    slots.open_slot(b"short")
    assert start().leftovers() == [b"short"]


class Killed(BaseException):
    """The process ends here."""


class _DyingMemory(mmap.mmap):
    """A mapped file whose process dies when it has written half of what a slot is to hold."""

    def __setitem__(self, place: Any, facts: Any) -> None:
        half = len(facts) // 2
        super().__setitem__(slice(place.start, place.start + half), facts[:half])
        raise Killed


@pytest.mark.parametrize("before", [b"", b"of a request that has ended, " * 9], ids=["unused", "used"])
def test_a_process_that_dies_while_it_writes_leaves_an_empty_slot(
    start: Open, monkeypatch: pytest.MonkeyPatch, before: bytes
) -> None:
    used = start()
    used.close_slot(used.open_slot(before))
    with monkeypatch.context() as patched:
        patched.setattr(mmap, "mmap", _DyingMemory)
        dying = start()
    with pytest.raises(Killed):
        dying.open_slot(b"x" * 100)
    assert start().leftovers() == []


def test_a_length_that_cannot_be_is_cut(start: Open, path: Path) -> None:
    start()
    path.write_bytes(struct.pack("<I", 2**32 - 1) + path.read_bytes()[4:])
    assert [len(left) for left in start().leftovers()] == [SLOT_BYTES - 4]


@pytest.mark.parametrize("size", [0, SLOT_BYTES - 4])
def test_the_smallest_and_the_largest(start: Open, size: int) -> None:
    start().open_slot(b"x" * size)
    assert start().leftovers() == ([b"x" * size] if size else [])


def test_what_is_too_large_takes_no_slot(start: Open) -> None:
    slots = start()
    for _ in range(9):
        with pytest.raises(SpoolUnavailableError, match="does not fit"):
            slots.open_slot(b"x" * (SLOT_BYTES - 3))
    for _ in range(4):
        slots.open_slot(b"one")


def test_slots_do_not_touch_each_other(start: Open) -> None:
    slots = start()
    full = [bytes([letter]) * (SLOT_BYTES - 4) for letter in b"abcd"]
    for facts in full:
        slots.open_slot(facts)
    assert sorted(start().leftovers()) == full


def test_a_file_of_a_process_with_more_slots_loses_none(start: Open, path: Path) -> None:
    with_more = Slots(path, count=9)
    for number in range(9):
        with_more.open_slot(b"%d" % number)
    with_more.close()
    slots = start()
    assert len(slots.leftovers()) == 9
    slots.forget_leftovers()
    for number in range(4):
        slots.open_slot(b"%d" % number)
    assert slots.is_full, "the setting holds, not what the file has room for"
    with pytest.raises(SpoolUnavailableError):
        slots.open_slot(b"one more")


def test_the_file_is_private_and_sparse(start: Open, path: Path) -> None:
    start().open_slot(b"one")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_size == 4 * SLOT_BYTES
    assert path.stat().st_blocks * 512 < SLOT_BYTES


def test_a_full_disk_is_told_before_anything_is_written(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = start()

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(SpoolUnavailableError, match="No space left"):
            slots.open_slot(b"one")
    assert start().leftovers() == []
    for _ in range(4):
        slots.open_slot(b"one")


def test_another_process_may_look(start: Open, path: Path) -> None:
    assert list(peek(path)) == []
    slots = start()
    slots.open_slot(b"one")
    slots.close_slot(slots.open_slot(b"two"))
    assert list(peek(path)) == [b"one"]
