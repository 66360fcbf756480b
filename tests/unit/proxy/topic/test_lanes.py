"""Which lane a row lies in, whatever is said of its tree later (counting 6)."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.spool import spreads
from proxy.spool.spreads import FILE, Spreads
from proxy.topic.lanes import TreeLanes
from runtime.kafka.writer import partition_of

LANES = 8
HOME = partition_of(b"root", LANES)


@dataclass
class File:
    spreads: Spreads
    end: int
    first: int = 1

    def begin(self) -> int:
        return self.first


def lanes(file: File) -> TreeLanes:
    return TreeLanes(LANES, {"own": file}, file)


def test_a_tree_lies_in_its_own_lane_until_it_is_spread_and_its_rows_stay_where_they_lie(tmp_path: Path) -> None:
    kept = Spreads(tmp_path)
    lanes(File(kept, end=5)).spread("root", 4)
    lanes(File(kept, end=9)).spread("root", 2)
    lanes(File(kept, end=12)).spread("root", 1)
    for found in (kept, Spreads(tmp_path)):  # as the next process reads it
        of = lanes(File(found, end=20)).of
        assert [of("root", "own", sequence) for sequence in range(1, 5)] == [HOME] * 4
        assert [of("root", "own", one) for one in range(5, 9)] == [(HOME + one % 4) % LANES for one in range(5, 9)]
        assert [of("root", "own", one) for one in range(9, 12)] == [(HOME + one % 2) % LANES for one in range(9, 12)]
        assert of("root", "own", 12) == HOME
        assert of("root", "another spool", 6) == HOME
        assert of("other", "own", 6) == partition_of(b"other", LANES)


def test_what_only_rows_that_are_gone_need_is_forgotten(tmp_path: Path) -> None:
    kept = Spreads(tmp_path)
    lanes(File(kept, end=5)).spread("root", 4)
    lanes(File(kept, end=9)).spread("root", 1)
    lanes(File(kept, end=30, first=20)).spread("other", 2)
    assert "root" not in kept
    assert (tmp_path / FILE).read_text() == "other 30 2\n"


def test_no_more_lanes_than_there_are_and_no_more_trees_than_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreads, "MOST", 1)
    kept = Spreads(tmp_path)
    of = lanes(File(kept, end=1))
    of.spread("root", 99)
    of.spread("other", 2)
    assert {of.of("root", "own", sequence) for sequence in range(1, 100)} == set(range(LANES))
    assert "other" not in kept


def test_a_line_that_is_torn_ends_the_file_and_a_disk_that_refuses_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text("root 5 4\nother 7")
    kept = Spreads(tmp_path)
    assert "root" in kept
    assert "other" not in kept
    nowhere = Spreads(tmp_path / "nowhere")
    lanes(File(nowhere, end=1)).spread("root", 2)
    assert not nowhere
    assert "stay as they are" in caplog.text
