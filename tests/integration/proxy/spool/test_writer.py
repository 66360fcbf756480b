"""The spool on real SQLite files: sequences, transactions, faults and their end, bounds, other boots (design 3.1)."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from proxy.core.calls import SpoolUnavailableError
from proxy.spool import file as spool_file
from proxy.spool import writer
from proxy.spool.writer import Spool
from runtime.settings import SpoolSync
from tests.contracts.proxy.drafts import draft


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the spool look after itself, and give up, sooner."""
    monkeypatch.setattr(writer, "_CHECKPOINT_EVERY_S", 0.01)
    monkeypatch.setattr(writer, "_BUSY_BOUND_S", 0.05)


@pytest.fixture(params=SpoolSync)
def sync(request: pytest.FixtureRequest) -> SpoolSync:
    return SpoolSync(request.param)


@pytest.fixture
def opened(tmp_path: Path, sync: SpoolSync) -> Iterator[Spool]:
    made, older = writer.open_folder(tmp_path, sync=sync, max_bytes=2**30)
    assert not older
    yield made
    made.close()


@asynccontextmanager
async def maintained(opened: Spool) -> AsyncIterator[None]:
    running = asyncio.create_task(opened.maintain())
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until_blocked_is(opened: Spool, *, blocked: bool) -> None:
    async with asyncio.timeout(10):
        while (opened.blocked is not None) is not blocked:  # noqa: ASYNC110 - the property is all there is to see
            await asyncio.sleep(0.005)


def keys(file: spool_file.SpoolFile) -> list[str]:
    return [event.idempotency_key for event in file.remaining()]


def rows(path: Path) -> list[int]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT sequence FROM event ORDER BY sequence")]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def size(path: Path) -> int:
    return path.stat().st_size


def reopened(folder: Path) -> Spool:
    again, older = writer.open_folder(folder, sync=SpoolSync.NORMAL, max_bytes=2**30)
    assert not older
    return again


async def test_another_connection_reads_an_event_when_put_has_returned(opened: Spool) -> None:
    sequence = await opened.put(draft(7))
    assert rows(opened.file.path) == [sequence]
    with closing(spool_file.SpoolFile(opened.file.path)) as other:
        (event,) = other.remaining()
    assert event == spool_file.numbered(draft(7), opened.instance, sequence)
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
        async with asyncio.timeout(10):
            while not opened.file.is_empty():  # noqa: ASYNC110 - the file is all there is to see
                await asyncio.sleep(0.005)
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
    async with maintained(opened), asyncio.timeout(10):
        while rows(opened.file.path)[0] < 4:  # noqa: ASYNC110 - the file is all there is to see
            await asyncio.sleep(0.005)
    assert rows(opened.file.path) == list(range(4, 11))
    opened.trim(10_000)  # nothing that is not written yet
    assert await opened.put(draft(10)) == 11
    async with maintained(opened), asyncio.timeout(10):
        while rows(opened.file.path) != [11]:  # noqa: ASYNC110 - the file is all there is to see
            await asyncio.sleep(0.005)


async def test_what_ends_in_one_turn_of_the_loop_goes_in_one_transaction(opened: Spool) -> None:
    begun: list[str] = []
    opened._writer.set_trace_callback(lambda text: begun.append(text) if text.startswith("BEGIN") else None)
    sequences = await asyncio.gather(*[opened.put(draft(number)) for number in range(50)])
    assert sequences == list(range(1, 51))
    assert len(begun) == 1


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


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_a_full_disk_blocks_and_an_emptier_one_opens(quick: None, opened: Spool) -> None:
    await opened.put(draft(0))
    (pages,) = opened._writer.execute("PRAGMA page_count").fetchone()
    opened._writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(SpoolUnavailableError, match="full"):
        await opened.put(draft(1, padding=15_000))
    assert "full" in (opened.blocked or "")
    opened._writer.execute("PRAGMA max_page_count=1000000")
    async with maintained(opened):
        await until_blocked_is(opened, blocked=False)
    assert await opened.put(draft(2)) == 2
    assert keys(opened.file) == ["key-0", "key-2"]


async def test_a_write_that_fails_half_way_leaves_nothing_of_its_turn(opened: Spool) -> None:
    with closing(sqlite3.connect(opened.file.path)) as other:
        other.execute(
            "CREATE TRIGGER stop BEFORE INSERT ON event WHEN NEW.sequence = 2 BEGIN SELECT RAISE(FAIL, 'no'); END"
        )
        for each in await asyncio.gather(*[opened.put(draft(n)) for n in range(3)], return_exceptions=True):
            assert isinstance(each, SpoolUnavailableError)
        other.execute("DROP TRIGGER stop")
    assert await opened.put(draft(3)) == 1
    assert keys(opened.file) == ["key-3"]


async def test_a_disk_with_no_room_blocks_before_anything_fails(
    quick: None, opened: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_LEAST_FREE_BYTES", 2**70)
    async with maintained(opened):
        await until_blocked_is(opened, blocked=True)
        assert "No space left" in (opened.blocked or "")
        monkeypatch.setattr(writer, "_LEAST_FREE_BYTES", 0)
        await until_blocked_is(opened, blocked=False)


async def test_a_spool_at_its_bound_blocks_until_it_is_trimmed(quick: None, tmp_path: Path) -> None:
    made, _ = writer.open_folder(tmp_path, sync=SpoolSync.NORMAL, max_bytes=200_000)
    async with maintained(made):
        for number in range(20):
            await made.put(draft(number, padding=10_000))
        await until_blocked_is(made, blocked=True)
        assert "200000 bytes" in (made.blocked or "")
        made.trim(made.file.end)
        await until_blocked_is(made, blocked=False)
        assert await made.put(draft(20)) == 21
    made.close()


async def test_a_short_lock_is_waited_for(opened: Spool) -> None:
    with closing(sqlite3.connect(opened.file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        putting = [asyncio.ensure_future(opened.put(draft(number))) for number in range(2)]
        await asyncio.sleep(0.02)
        putting.append(asyncio.ensure_future(opened.put(draft(2))))
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in putting)
        other.execute("ROLLBACK")
        assert await asyncio.gather(*putting) == [1, 2, 3]
    assert opened.blocked is None


async def test_a_lock_that_stays_is_given_up_at_its_bound_and_forgotten_when_it_goes(
    quick: None, opened: Spool
) -> None:
    loop = asyncio.get_running_loop()
    async with maintained(opened):
        with closing(sqlite3.connect(opened.file.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = loop.time()
            with pytest.raises(SpoolUnavailableError, match="locked"):
                await opened.put(draft(0))
            assert loop.time() - began >= 0.04
            assert "locked" in (opened.blocked or "")
            await asyncio.sleep(0.05)  # looked after several times meanwhile
            assert opened.blocked is not None
            other.execute("ROLLBACK")
        await until_blocked_is(opened, blocked=False)
    assert await opened.put(draft(1)) == 1
    assert keys(opened.file) == ["key-1"]


async def test_trimming_waits_for_a_lock_and_holds_nothing_up(quick: None, opened: Spool) -> None:
    for number in range(3):
        await opened.put(draft(number))
    async with maintained(opened):
        with closing(sqlite3.connect(opened.file.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            opened.trim(3)
            await asyncio.sleep(0.05)
            assert rows(opened.file.path) == [1, 2, 3]
            other.execute("ROLLBACK")
        async with asyncio.timeout(10):
            while rows(opened.file.path) != [3]:  # noqa: ASYNC110 - the file is all there is to see
                await asyncio.sleep(0.005)


async def test_a_file_that_is_gone_blocks(quick: None, opened: Spool) -> None:
    await opened.put(draft(0))
    opened.file.path.with_name(f"{opened.file.path.name}-wal").unlink()
    async with maintained(opened):
        opened._path = opened.file.path.parent / "nowhere" / "x.spool"
        await until_blocked_is(opened, blocked=True)


async def test_the_log_is_checkpointed_and_does_not_grow_for_ever(
    quick: None, opened: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_WAL_RESTART_BYTES", 100_000)
    log = Path(f"{opened.file.path}-wal")
    async with maintained(opened):
        largest = 0
        for number in range(300):
            await opened.put(draft(number, padding=2_000))
            largest = max(largest, size(log))
            await asyncio.sleep(0.001)
    assert largest < 3_000_000  # of 1.2 MB of events, each with its pages
    assert len(rows(opened.file.path)) == 300


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
