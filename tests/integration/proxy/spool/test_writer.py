"""The spool on real files: sequences, writes, reading, other boots (counting 1)."""

import asyncio
import os
from contextlib import closing
from pathlib import Path

import pytest

from proxy.spool import file as spool_file
from proxy.spool import writer
from proxy.spool.writer import Spool
from runtime.settings import SpoolSync
from tests.contracts.proxy.drafts import draft
from tests.integration.proxy.fake_topic import rows, until
from tests.integration.proxy.spool.kit import (
    keys,
    maintained,
    names,
    reopened,
)
from tests.support.events import as_contract


async def test_another_process_reads_an_event_when_put_has_returned(opened: Spool) -> None:
    sequence = await opened.put(draft(7))
    assert rows(opened.file.path) == [sequence]
    with closing(spool_file.SpoolFile(opened.file.path)) as other:
        (event,) = other.remaining()
    assert as_contract(event) == spool_file.numbered(draft(7), opened.instance, sequence)
    assert event.producer.instance == opened.instance


async def test_sequences_go_on_where_the_last_process_stopped(tmp_path: Path, opened: Spool) -> None:
    assert [await opened.put(draft(number)) for number in range(3)] == [1, 2, 3]
    opened.close()
    again = reopened(tmp_path)
    assert again.instance == opened.instance
    assert again.file.end == 4
    assert await again.put(draft(3)) == 4
    again.close()


async def test_a_sequence_is_never_used_again_though_all_is_trimmed(tmp_path: Path, quick: None, opened: Spool) -> None:
    for number in range(600):
        await opened.put(draft(number))
    async with maintained(opened):
        opened.trim(opened.file.end)
        await until(opened.file.is_empty)
    opened.close()
    again = reopened(tmp_path)
    assert again.file.is_empty()
    assert await again.put(draft(600)) == 601
    again.close()


async def test_trimming_stops_where_it_is_told(quick: None, opened: Spool) -> None:
    for number in range(10):
        await opened.put(draft(number))
    opened.trim(4)
    opened.trim(2)  # never back
    async with maintained(opened):
        await until(lambda: rows(opened.file.path)[0] >= 4)
    assert rows(opened.file.path) == list(range(4, 11))
    opened.trim(10_000)  # nothing that is not written yet
    assert await opened.put(draft(10)) == 11
    async with maintained(opened):
        await until(lambda: rows(opened.file.path) == [11])


async def test_what_ends_in_one_turn_of_the_loop_goes_in_one_write(
    opened: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []

    def noted(file: int, data: bytes, place: int) -> int:
        writes.append(place)
        return pwrite(file, data, place)

    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", noted)
    sequences = await asyncio.gather(*[opened.put(draft(number)) for number in range(50)])
    assert sequences == list(range(1, 51))
    assert writes == [0]


async def test_an_event_whose_request_was_cancelled_is_kept_all_the_same(opened: Spool) -> None:
    putting = opened.put(draft(0))
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert await opened.put(draft(1)) == 2
    assert keys(opened.file) == ["key-0", "key-1"]


async def test_what_was_put_before_the_close_is_in_the_file(tmp_path: Path, opened: Spool) -> None:
    await opened.put(draft(0))
    putting = [opened.put(draft(number)) for number in (1, 2)]
    opened.close()  # in the turn of the loop in which they were put: nothing has flushed them
    await assert_kept(tmp_path, putting, [0, 1, 2])


async def test_what_was_put_while_others_are_written_is_in_the_file(tmp_path: Path, opened: Spool) -> None:
    putting = [opened.put(draft(number)) for number in (0, 1)]
    await asyncio.sleep(0)  # this turn flushes them: under FULL a thread writes them and the loop does not know it yet
    putting.append(opened.put(draft(2)))
    opened.close()
    await assert_kept(tmp_path, putting, [0, 1, 2])


async def assert_kept(folder: Path, putting: list[asyncio.Future[int]], numbers: list[int]) -> None:
    """Assert that a file whose process has ended holds these drafts, numbered from 1; end the puts of that process."""
    for each in putting:
        each.cancel()
    await asyncio.gather(*putting, return_exceptions=True)
    again = reopened(folder)
    assert keys(again.file) == [f"key-{number}" for number in numbers]
    assert rows(again.file.path) == list(range(1, len(numbers) + 1))
    assert again.file.end == len(numbers) + 1
    again.close()


# --- reading ----------------------------------------------------------------------------------------------------------


async def test_reading_in_pieces(opened: Spool) -> None:
    for number in range(5):
        await opened.put(draft(number))
    first = await opened.file.read(1, 3)
    assert (first.topic, first.partition, first.first_offset, first.next_offset) == (opened.file.topic, 0, 1, 4)
    assert [event.producer.sequence for event in first.events] == [1, 2, 3]
    rest = await opened.file.read(first.next_offset, 3)
    assert [event.producer.sequence for event in rest.events] == [4, 5]
    none = await opened.file.read(rest.next_offset, 3)
    assert (none.first_offset, none.next_offset, none.events) == (6, 6, ())


async def test_a_reader_is_woken(opened: Spool) -> None:
    await opened.put(draft(0))
    await opened.file.wait(1, 100)  # it is there
    waiting = [asyncio.create_task(opened.file.wait(2, 100)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    await opened.put(draft(1))
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    await opened.file.wait(3, 0.01)
    assert not opened.file._waiters


# --- other boots ------------------------------------------------------------------------------------------------------


async def test_a_file_of_another_boot_is_left_to_be_drained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = writer.open_folder(tmp_path, sync=SpoolSync.NORMAL, max_bytes=2**30)
    await first.put(draft(0))
    first.close()
    monkeypatch.setattr(writer, "boot_id", lambda: "another boot")
    second, older = writer.open_folder(tmp_path, sync=SpoolSync.NORMAL, max_bytes=2**30)
    assert second.instance != first.instance
    assert await second.put(draft(1)) == 1
    (old,) = writer.drained(older)
    assert (old.instance, keys(old), old.end) == (first.instance, ["key-0"], 2)
    await old.let_go(old.end, 0)
    assert writer.drained([old]) == []
    assert [name for name in names(tmp_path) if first.instance in name] == []
    second.close()


async def test_a_file_of_another_boot_that_is_empty_goes_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.open_folder(tmp_path, sync=SpoolSync.NORMAL, max_bytes=2**30)[0].close()
    monkeypatch.setattr(writer, "boot_id", lambda: "another boot")
    second, older = writer.open_folder(tmp_path, sync=SpoolSync.NORMAL, max_bytes=2**30)
    assert writer.drained(older) == []
    second.close()
    assert len([name for name in names(tmp_path) if name.endswith(".spool")]) == 1


async def test_a_file_that_was_not_finished_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "01ABC.new").write_bytes(b"")
    made, older = writer.open_folder(tmp_path, sync=SpoolSync.NORMAL, max_bytes=2**30)
    assert not older
    assert await made.put(draft(0)) == 1
    made.close()
