"""Which rows of a spool stay, which go, and what a restart knows of them (counting 1)."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pytest

from proxy.spool import file as spool_file
from proxy.spool import retention, writer
from proxy.spool.file import SpoolFile
from proxy.spool.retention import SpoolRetention
from proxy.spool.writer import Spool
from proxy.topic import publisher
from proxy.topic import report as spool_report
from tests.integration.proxy import fake_topic as topics
from tests.integration.proxy.fake_topic import (
    PARTITIONS,
    Limits,
    Topic,
    charged,
    mark_in,
    partition_of,
    publishing,
    rows,
    running,
    spooled,
    until,
)
from tests.integration.proxy.spool.kit import rows_kept_by_the_disk


class Passed(Limits):
    """Says that metering has passed what `which` says of (instance, sequence)."""

    def __init__(self, which: Callable[[str, int], bool]) -> None:
        super().__init__()
        self._which = which

    def may_go(  # noqa: PLR0917 - the port's
        self, group_ids: Sequence[str], slug: str, day: date, instance: str, sequence: int, offset: int
    ) -> bool:
        return self._which(instance, sequence)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    topics.be_quick(monkeypatch)


async def test_a_restart_repeats_only_what_is_above_the_mark(tmp_path: Path, sink: Spool, topic: Topic) -> None:
    made = publishing(sink, topic)
    async with running(made):
        await spooled(sink, range(100))
        assert await made.drain(10)
        topic.away |= set(range(PARTITIONS))
        await spooled(sink, range(100, 120))
    sink.close()
    assert mark_in(sink.file.path) == 100
    again, _ = topics.opened(tmp_path)
    fresh = Topic()
    made = publishing(again, fresh)
    assert [mark[1:3] for mark in made.marks()] == [(100, 120)]
    async with running(made):
        assert await made.drain(10)
    assert fresh.sequences == list(range(101, 121))
    again.close()


async def test_the_mark_is_kept_while_the_process_runs(sink: Spool, topic: Topic) -> None:
    """kill -9 leaves no time to write it."""
    made = publishing(sink, topic)
    async with running(made, sink):
        await spooled(sink, range(10))
        await until(lambda: mark_in(sink.file.path) == 10)


async def test_a_row_stays_until_it_is_acknowledged_though_it_is_counted(sink: Spool, topic: Topic) -> None:
    stuck = partition_of(6)
    topic.away.add(stuck)
    made = publishing(sink, topic, limits=Limits(passed=True))
    async with running(made, sink):
        await spooled(sink, [number for number in range(6) if partition_of(number) != stuck])
        before = sink.file.end
        await spooled(sink, [6])
        await spooled(sink, [number for number in range(12) if partition_of(number) != stuck])
        await until(lambda: rows(sink.file.path)[0] == before)
        await until(lambda: len(topic.sequences) == sink.file.end - 2)
        assert rows(sink.file.path) == list(range(before, sink.file.end)), "nor does a later row go before it"
        topic.away.clear()
        await until(sink.file.is_empty)


async def test_a_row_stays_until_metering_counts_it_though_it_is_acknowledged(sink: Spool, topic: Topic) -> None:
    counted_through = 0
    asked: set[tuple[tuple[str, ...], str, str, str]] = set()

    class Asked(Limits):
        def may_go(  # noqa: PLR0917 - the port's
            self, group_ids: Sequence[str], slug: str, day: date, instance: str, sequence: int, offset: int
        ) -> bool:
            asked.add((tuple(group_ids), slug, str(day), instance))
            assert offset >= self.placed[instance, sequence][1], "a row is never thought lower than it lies"
            return sequence <= counted_through

    made = publishing(sink, topic, limits=Asked())
    async with running(made, sink):
        await spooled(sink, range(20))
        assert await made.drain(10)
        await until(lambda: len(asked) == 1)
        assert rows(sink.file.path) == list(range(1, 21))
        counted_through = 7
        await until(lambda: rows(sink.file.path) == list(range(8, 21)))
        counted_through = 20
        await until(sink.file.is_empty)
    assert (("own-0", "group-0"), charged(0).model_slug, "2025-03-01", sink.instance) in asked


async def test_rows_that_are_not_remembered_are_read_again(
    sink: Spool, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_MOST_REMEMBERED", 7)
    monkeypatch.setattr(publisher, "MOST_AT_ONCE", 30)
    counted_through = 0
    made = publishing(sink, topic, limits=Passed(lambda instance, sequence: sequence <= counted_through))
    async with running(made, sink):
        await spooled(sink, range(200))
        assert await made.drain(10)
        counted_through = 150
        await until(lambda: rows(sink.file.path) == list(range(151, 201)))
        await spooled(sink, range(200, 210))
        counted_through = 210
        await until(sink.file.is_empty)


async def test_a_row_that_is_not_remembered_is_not_passed_over(
    sink: Spool, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_MOST_REMEMBERED", 7)
    counted = {1, 2, 3}
    made = publishing(sink, topic, limits=Passed(lambda instance, sequence: sequence in counted))
    async with running(made, sink):
        await spooled(sink, range(20))
        assert await made.drain(10)
        await until(lambda: rows(sink.file.path) == list(range(4, 21)))
        await spooled(sink, range(20, 22))
        assert await made.drain(10)
        counted |= {4, 5, 6, 7, 21, 22}
        await until(lambda: rows(sink.file.path)[0] == 8)
        await until(lambda: mark_in(sink.file.path) == 22)
        assert rows(sink.file.path) == list(range(8, 23))


async def test_no_row_goes_while_a_report_is_made(sink: Spool, topic: Topic) -> None:
    made = publishing(sink, topic, limits=Limits(passed=True))
    async with running(made, sink):
        async with made.steady:
            for last in (10, 20):
                await spooled(sink, range(10))
                assert await made.drain(10)
                await until(lambda last=last: mark_in(sink.file.path) == last)  # type: ignore[misc]
            assert rows(sink.file.path) == list(range(1, 21))
            report = asyncio.ensure_future(spool_report.unpublished(made, {}))
            await until(lambda: len(made.steady._waiters or ()) == 2)  # the report, and who would let rows go
            assert not report.done(), "nor is one made while rows go"
        await report
        await until(sink.file.is_empty)


async def test_a_full_spool_gives_up_acknowledged_rows_and_counts_them(tmp_path: Path, topic: Topic) -> None:
    sink, _ = topics.opened(tmp_path, max_bytes=200_000)
    stuck = partition_of(0)
    made = publishing(sink, topic)
    async with running(made, sink):
        await spooled(sink, [number for number in range(100) if partition_of(number) != stuck])
        acknowledged = sink.file.end - 1
        await until(lambda: mark_in(sink.file.path) == acknowledged)  # so what may go was looked for since
        assert rows(sink.file.path) == list(range(1, acknowledged + 1)), "while there is room, nothing uncounted goes"
        assert (sink.filling, made.dropped_uncounted) == (False, 0)
        topic.away.add(stuck)
        await spooled(sink, [0] * 400)
        await until(lambda: sink.filling)
        await until(lambda: rows(sink.file.path)[0] == acknowledged + 1)
        assert made.dropped_uncounted == acknowledged
        assert rows(sink.file.path) == list(range(acknowledged + 1, sink.file.end)), "what is not published stays"
        await until(lambda: sink.blocked is not None)
        topic.away.clear()
        await until(lambda: sink.blocked is None)
    sink.close()


async def test_an_older_file_is_drained_and_removed_and_its_instance_known(
    tmp_path: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "boot_id", lambda: "before")
    old, _ = topics.opened(tmp_path)
    await spooled(old, range(30))
    old.close()
    monkeypatch.setattr(writer, "boot_id", lambda: "now")
    sink, older = topics.opened(tmp_path)
    counted = False
    made = publishing(sink, topic, older, limits=Passed(lambda instance, sequence: counted))
    async with running(made, sink):
        await spooled(sink, range(30, 60))
        assert await made.drain(10)
        await until(lambda: mark_in(old.file.path) == 30)
        assert rows(old.file.path) == list(range(1, 31)), "its rows are today's and not counted"
        counted = True
        await until(lambda: not old.file.path.exists())
        assert [(mark.instance, mark.acknowledged_through, mark.file is None) for mark in made.marks()] == [
            (old.instance, 30, True),
            (sink.instance, 30, False),
        ]
        assert await made.drain(1)
    assert len(topic.sequences) == 60
    sink.close()
    for file in older:
        file.close()
    assert spool_file.drained_instances(tmp_path) == {old.instance: 30}


async def test_an_older_file_that_was_published_is_not_published_again(
    tmp_path: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "boot_id", lambda: "before")
    old, _ = topics.opened(tmp_path)
    await spooled(old, range(30))
    for partition in range(PARTITIONS):
        old.file.placed.note(partition, 30, 29)
    old.acknowledge(30)
    old.close()
    monkeypatch.setattr(writer, "boot_id", lambda: "now")
    sink, older = topics.opened(tmp_path)
    made = publishing(sink, topic, older, limits=Limits(passed=True))
    async with running(made, sink):
        await until(lambda: not old.file.path.exists())
    assert topic.sequences == []
    sink.close()


def test_the_list_of_drained_instances_survives_a_torn_line(tmp_path: Path) -> None:
    assert spool_file.drained_instances(tmp_path) == {}
    (tmp_path / "drained").write_text("one 7\ntwo\nthree x\nfour 9\nfi")
    assert spool_file.drained_instances(tmp_path) == {"one": 7, "four": 9}


async def test_the_mark_is_never_taken_back(sink: Spool) -> None:
    await spooled(sink, range(9))
    sink.acknowledge(7)
    sink.acknowledge(3)
    async with running(sink):
        await until(lambda: mark_in(sink.file.path) == 7)


# --- a disk that refuses ----------------------------------------------------------------------------------------------


async def test_rows_that_the_disk_keeps_go_later_and_nothing_else_waits_for_them(
    tmp_path: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(writer, "boot_id", lambda: "before")
    old, _ = topics.opened(tmp_path)
    await spooled(old, range(30))
    old.close()
    monkeypatch.setattr(writer, "boot_id", lambda: "now")
    sink, older = topics.opened(tmp_path)
    made = publishing(
        sink, topic, older, limits=Passed(lambda instance, sequence: instance == sink.instance or sequence <= 12)
    )
    async with running(made, sink):
        with rows_kept_by_the_disk(old.file.path):
            await spooled(sink, range(30, 60))
            await until(sink.file.is_empty)
            await until(lambda: any("waits for the disk" in text for text in caplog.messages))
            assert rows(old.file.path) == list(range(1, 31))
        await until(lambda: rows(old.file.path) == list(range(13, 31)))
        await until(lambda: any("the disk is back" in text for text in caplog.messages))
    assert sum("waits for the disk" in text for text in caplog.messages) == 1
    sink.close()
    for file in older:
        file.close()


async def test_a_file_that_cannot_be_removed_is_shown_until_it_is(
    tmp_path: Path, topic: Topic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer, "boot_id", lambda: "before")
    old, _ = topics.opened(tmp_path)
    await spooled(old, range(30))
    old.close()
    monkeypatch.setattr(writer, "boot_id", lambda: "now")
    sink, older = topics.opened(tmp_path)
    made = publishing(sink, topic, older, limits=Limits(passed=True))
    (tmp_path / "drained").mkdir()  # so it cannot be written
    async with running(made, sink):
        await until(lambda: any("waits for the disk" in text for text in caplog.messages))
        assert next((mark.instance, mark.file is None) for mark in made.marks()) == (old.instance, False)
        (tmp_path / "drained").rmdir()
        await until(lambda: not old.file.path.exists())
        await until(lambda: made.marks()[0].file is None)
    assert [mark.instance for mark in made.marks()] == [old.instance, sink.instance]
    assert spool_file.drained_instances(tmp_path) == {old.instance: 30}
    sink.close()


async def test_a_start_leaves_an_empty_file_that_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "boot_id", lambda: "before")
    topics.opened(tmp_path)[0].close()
    monkeypatch.setattr(writer, "boot_id", lambda: "now")
    sink, older = topics.opened(tmp_path)
    (tmp_path / "drained").mkdir()  # so it cannot be written
    assert writer.drained(older) == older
    assert list(older[0].remaining()) == [], "it is open"
    (tmp_path / "drained").rmdir()
    assert writer.drained(older) == []
    sink.close()


async def test_an_instance_is_noted_once_and_behind_a_torn_line(tmp_path: Path) -> None:
    sink, _ = topics.opened(tmp_path)
    await spooled(sink, range(41))
    sink.close()
    (tmp_path / "drained").write_text(f"one 7\n{sink.instance} 4")
    for _ in range(2):
        sink.file.remove()
    assert spool_file.drained_instances(tmp_path) == {"one": 7, sink.instance: 41}
    assert (tmp_path / "drained").read_text().count(sink.instance) == 2


async def test_who_stops_waits_until_every_reader_has_passed_the_spool(sink: Spool) -> None:
    await spooled(sink, range(3))
    looks: list[SpoolFile] = []

    def one_more_at_each_look(file: SpoolFile) -> int:
        looks.append(file)
        return len(looks)

    await SpoolRetention(sink, [], one_more_at_each_look).read_to_end()
    assert len(looks) == sink.file.end


async def test_who_stops_does_not_wait_for_ever(sink: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "READ_WITHIN_S", 0)
    await spooled(sink, range(3))
    await SpoolRetention(sink, [], lambda _: 0).read_to_end()
