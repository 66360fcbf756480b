"""Where Kafka has a spool's rows: told at once, kept for the next process, never thought lower than it is."""

from pathlib import Path

import pytest

from proxy.spool.placed import Placed
from proxy.spool.writer import Spool
from tests.integration.proxy import fake_topic as topics
from tests.integration.proxy.fake_topic import (
    PARTITIONS,
    Limits,
    Topic,
    partition_of,
    publishing,
    running,
    spooled,
    until,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    topics.be_quick(monkeypatch)


async def test_where_a_row_lies_is_kept_for_the_next_process(tmp_path: Path, topic: Topic) -> None:
    first, _ = topics.opened(tmp_path)
    limits = Limits()
    made = publishing(first, topic, limits=limits)
    async with running(made, first):
        await spooled(first, range(60))
        assert await made.drain(10)
    first.close()
    again, _ = topics.opened(tmp_path)
    for (instance, sequence), (partition, offset) in limits.placed.items():
        kept = again.file.placed.offset_of(partition, sequence)
        assert instance == again.instance
        assert kept is not None
        assert kept >= offset
    assert len(limits.placed) == 60
    again.close()


async def test_of_rows_that_kafka_has_and_does_not_place_the_end_is_told(sink: Spool, topic: Topic) -> None:
    topic.unplaced |= set(range(PARTITIONS))
    limits = Limits()

    async def ends() -> dict[int, int]:
        return {partition: 1000 + partition for partition in range(PARTITIONS)}

    made = publishing(sink, topic, limits=limits, ends=ends)
    async with running(made):
        await spooled(sink, range(12))
        assert await made.drain(10)
    assert {offset - partition for partition, offset in limits.placed.values()} == {999}


async def test_a_row_that_its_lane_has_is_not_sent_again_though_an_earlier_one_is_not_there(
    tmp_path: Path, topic: Topic
) -> None:
    first, _ = topics.opened(tmp_path)
    stuck = partition_of(0)
    topic.away.add(stuck)
    made = publishing(first, topic)
    async with running(made, first):
        await spooled(first, range(12))
        others = [number for number in range(12) if partition_of(number) != stuck]
        await until(lambda: len(topic.sequences) == len(others))
        await until(lambda: first.file.placed.changes == first._kept_changes)
    first.close()
    topic.away.clear()
    again, _ = topics.opened(tmp_path)
    made = publishing(again, topic)
    async with running(made):
        assert await made.drain(10)
    assert topic.sequences == list(range(1, 13)), "each once"
    again.close()


def test_an_entry_covers_the_rows_up_to_it_and_the_next_one_those_behind() -> None:
    placed = Placed()
    placed.note(0, 5, 50)
    placed.note(0, 9, 90)
    assert placed.offset_of(0, 3) == 90, "neither was saved, so the later one stands for both"
    placed = Placed(placed.saved().splitlines())
    placed.note(0, 20, 200)
    assert [placed.offset_of(0, sequence) for sequence in (1, 9, 10, 20, 21)] == [90, 90, 200, 200, None]
    assert placed.offset_of(1, 1) is None
    placed.forget(10)
    assert placed.offset_of(0, 1) == 200
    placed.forget(21)
    assert placed.saved() == ""
    assert Placed(["0 5 50", "torn"]).offset_of(0, 5) == 50


def test_very_many_entries_are_thinned_and_stay_upper_bounds() -> None:
    placed = Placed()
    for number in range(1, 1500):
        placed.note(0, number, number * 10)
        lines = placed.saved().splitlines()
    assert len(lines) <= 1000
    assert all(number * 10 <= (placed.offset_of(0, number) or 0) for number in range(1, 1500))
