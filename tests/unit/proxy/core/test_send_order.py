"""What of a spool may be sent, and up to where it is acknowledged (counting 3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import send_order
from proxy.core.send_order import Draining


def filled(count: int, partitions: int = 2, *, after: int = 0) -> Draining[int]:
    """Return one that has read `count` events, dealt to the partitions in turn."""
    made: Draining[int] = Draining(after)
    for sequence in range(after + 1, after + count + 1):
        made.add(sequence % partitions, sequence, sequence, 1)
    return made


def test_a_partition_gets_its_own_events_in_order() -> None:
    made = filled(6)
    assert sorted(made.sendable()) == [0, 1]
    assert made.take(0) == [2, 4, 6]
    assert made.take(1) == [1, 3, 5]


def test_nothing_is_given_while_an_earlier_event_is_under_way() -> None:
    made = filled(2, partitions=1)
    assert made.take(0) == [1, 2]
    made.add(0, 3, 3, 1)
    assert made.sendable() == []
    assert made.take(0) == []
    made.acknowledge(0)
    assert made.sendable() == [0]
    assert made.take(0) == [3]


def test_an_unknown_partition_has_nothing() -> None:
    assert filled(1).take(7) == []


def test_the_mark_stops_at_the_first_that_is_not_acknowledged() -> None:
    made = filled(6, after=10)
    assert made.acknowledged_through == 10
    made.take(0)
    made.take(1)
    made.acknowledge(0)  # 12, 14, 16
    assert made.acknowledged_through == 10
    made.acknowledge(1)  # 11, 13, 15
    assert made.acknowledged_through == made.read_through == 16


def test_a_gap_in_the_sequences_does_not_stop_the_mark() -> None:
    made: Draining[int] = Draining(0)
    for sequence in (3, 9):
        made.add(0, sequence, sequence, 1)
    made.take(0)
    made.acknowledge(0)
    assert made.acknowledged_through == 9


def test_a_batch_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_order, "MOST_AT_ONCE", 2)
    assert filled(5, partitions=1).take(0) == [1, 2]


def test_a_stuck_partition_lets_the_others_pass_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_order, "MOST_HELD", 10)
    monkeypatch.setattr(send_order, "MOST_AHEAD", 14)
    made = filled(10)
    assert made.room == 0
    made.take(1)  # and never comes back
    made.take(0)
    made.acknowledge(0)
    assert made.room == 4, "fourteen ahead of the first that is stuck, though only five are held"
    for sequence in range(11, 15):
        made.add(0, sequence, sequence, 1)
    made.take(0)
    made.acknowledge(0)
    assert made.room == 0
    made.acknowledge(1)
    assert made.room == 10
    assert made.acknowledged_through == 14


def test_what_is_held_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_order, "MOST_HELD_BYTES", 100)
    made: Draining[int] = Draining(0)
    made.add(0, 1, 1, 99)
    assert made.room > 0
    made.add(0, 2, 2, 1)
    assert made.room == 0
    made.take(0)
    made.acknowledge(0)
    assert made.room > 0


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "acknowledge"]), st.integers(0, 2)), max_size=200))
def test_the_mark_is_always_just_below_the_first_that_is_open(steps: list[tuple[str, int]]) -> None:
    made: Draining[int] = Draining(0)
    sequence = 0
    open_: set[int] = set()
    under_way: dict[int, list[int]] = {}
    sent: dict[int, list[int]] = {}
    for what, partition in steps:
        if what == "add":
            sequence += 1
            made.add(partition, sequence, sequence, 1)
            open_.add(sequence)
        elif what == "take":
            taken = made.take(partition)
            assert not (taken and partition in under_way)
            if taken:
                under_way[partition] = taken
                sent.setdefault(partition, []).extend(taken)
        elif partition in under_way:
            made.acknowledge(partition)
            open_ -= set(under_way.pop(partition))
        assert made.acknowledged_through == (min(open_) - 1 if open_ else sequence)
    assert all(each == sorted(set(each)) for each in sent.values())
