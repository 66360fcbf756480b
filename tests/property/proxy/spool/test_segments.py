"""Segments of a spool: whatever was written is read from anywhere, and a write that was cut off is no record."""

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from proxy.spool import segments
from proxy.spool.segments import Segments

events = st.lists(st.lists(st.binary(min_size=1, max_size=30_000), min_size=1, max_size=12), min_size=1, max_size=4)
"""Of each segment its events."""


def write(folder: Path, parts: list[list[bytes]]) -> list[tuple[int, bytes]]:
    written: list[tuple[int, bytes]] = []
    found = Segments(folder)
    for part in parts:
        file = found.begin(len(written) + 1)
        for event in part:
            written.append((len(written) + 1, event))
            os.write(file, segments.record(*written[-1]))
        os.close(file)
    return written


@given(parts=events, offsets=st.lists(st.integers(0, 50), min_size=1, max_size=5))
def test_all_that_was_written_is_read_from_any_offset(parts: list[list[bytes]], offsets: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        written = write(Path(name), parts)
        found = Segments(Path(name))
        for offset in offsets:  # what one reading has found out of places, the next goes by
            assert list(found.scan(offset)) == [row for row in written if row[0] >= offset]
        assert found.end() == (len(written) + 1, found.newest.stat().st_size)


@given(parts=events, data=st.data())
def test_a_write_that_was_cut_off_is_no_record(parts: list[list[bytes]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as name:
        written = write(Path(name), parts)
        newest = Segments(Path(name)).newest
        ends = [0, *(record.end for record in segments.records(newest))]
        size = data.draw(st.integers(0, newest.stat().st_size))
        os.truncate(newest, size)
        whole = max(place for place, end in enumerate(ends) if end <= size)
        found = Segments(Path(name))
        kept = len(written) - len(parts[-1]) + whole
        assert list(found.scan(1)) == written[:kept]
        assert found.end() == (kept + 1, ends[whole])


@given(parts=events, before=st.integers(0, 60))
def test_dropping_keeps_all_that_is_wanted(parts: list[list[bytes]], before: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        written = write(Path(name), parts)
        found = Segments(Path(name))
        found.drop(before)
        for each in (found, Segments(Path(name))):
            assert list(each.scan(before)) == [row for row in written if row[0] >= before]
            assert each.end()[0] == len(written) + 1


@given(parts=events, data=st.data())
def test_one_changed_byte_costs_its_own_record_at_most(parts: list[list[bytes]], data: st.DataObject) -> None:
    """Where the byte stands in an event; a length that is wrong takes the rest of its segment with it."""
    with tempfile.TemporaryDirectory() as name:
        written = write(Path(name), parts)
        path = data.draw(st.sampled_from(sorted(Path(name).glob("*.log"))))
        hit = data.draw(st.sampled_from(list(segments.records(path))))
        changed = bytearray(path.read_bytes())
        changed[hit.end - 1 - data.draw(st.integers(0, len(hit.event) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(changed)
        assert list(Segments(Path(name)).scan(1)) == [row for row in written if row[0] != hit.sequence]
