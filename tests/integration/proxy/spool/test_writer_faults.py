"""The spool on real files: full disks, bounds, writes that were interrupted, and the end of each (counting 1)."""

import asyncio
import shutil
from pathlib import Path

import pytest

from proxy.core.calls import SpoolUnavailableError
from proxy.spool import segments, writer
from proxy.spool.writer import Spool
from runtime.settings import SpoolSync
from tests.contracts.proxy.drafts import draft
from tests.integration.proxy.fake_topic import rows, until
from tests.integration.proxy.spool.kit import (
    damage,
    keys,
    maintained,
    no_file_beyond,
    reopened,
    size,
    until_blocked_is,
    until_looked_after,
)


async def test_a_full_disk_blocks_and_an_emptier_one_opens(quick: None, opened: Spool) -> None:
    await opened.put(draft(0))
    with no_file_beyond(size(opened.file.path) + 3_000):
        with pytest.raises(SpoolUnavailableError, match="File too large"):
            await opened.put(draft(1, padding=15_000))
        async with maintained(opened):
            await until_looked_after(opened)
            assert "File too large" in (opened.blocked or "")
    async with maintained(opened):
        await until_blocked_is(opened, blocked=False)
    assert await opened.put(draft(2)) == 2
    assert keys(opened.file) == ["key-0", "key-2"]


async def test_a_write_that_fails_half_way_leaves_nothing_of_its_turn(opened: Spool) -> None:
    await opened.put(draft(0))
    before = size(opened.file.path)
    with no_file_beyond(before + before * 3 // 2):
        for each in await asyncio.gather(*[opened.put(draft(n)) for n in range(1, 4)], return_exceptions=True):
            assert isinstance(each, SpoolUnavailableError)
    assert size(opened.file.path) == before
    assert await opened.put(draft(4)) == 2
    assert keys(opened.file) == ["key-0", "key-4"]


async def test_a_write_that_was_interrupted_is_put_aside_at_the_next_start(
    opened: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(2):
        await opened.put(draft(number))
    opened.close()
    (segment,) = opened.file.path.glob("*.log")
    whole = segment.read_bytes()
    first, _ = [record.end for record in segments.records(segment)]
    for kept in (first, first + 1, first + 16, first + 17, len(whole) - 1):
        segment.write_bytes(whole[:kept])
        again = reopened(opened.file.path.parent)
        assert keys(again.file) == ["key-0"]
        assert await again.put(draft(9)) == 2
        again.close()
        assert keys(again.file) == ["key-0", "key-9"]
        if kept > first:
            assert segment.with_suffix(".torn").read_bytes() == whole[first:kept]
    assert sum("put aside" in text for text in caplog.messages) == 4


async def test_an_event_that_is_damaged_is_passed_over_and_its_number_is_missing(
    opened: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        await opened.put(draft(number))
    damage(opened.file.path, 2, 3)
    assert rows(opened.file.path) == [1, 4, 5]
    assert any("2 records before sequence 4 cannot be read" in text for text in caplog.messages)
    assert [event.producer.sequence for event in (await opened.file.read(2, 10)).events] == [4, 5]
    assert await opened.put(draft(5)) == 6


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


async def test_a_spool_that_is_gone_blocks(quick: None, opened: Spool) -> None:
    await opened.put(draft(0))
    async with maintained(opened):
        await until_looked_after(opened)
        shutil.rmtree(opened.file.path)
        await until_blocked_is(opened, blocked=True)


async def test_segments_go_with_the_last_row_of_each(
    quick: None, opened: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened._segment_bytes = 20_000
    for number in range(60):
        await opened.put(draft(number, padding=2_000))

    def names() -> list[str]:
        return sorted(path.name for path in opened.file.path.glob("*.log"))

    before = names()
    assert len(before) >= 6
    second = int(before[1].removesuffix(".log"))
    async with maintained(opened):
        opened.trim(second - 1)
        await until(lambda: rows(opened.file.path)[0] == second - 1)
        await until_looked_after(opened)
        assert names()[: len(before)] == before, "the last row of the first is wanted"
        opened.trim(second)
        await until(lambda: before[0] not in names())
        assert names()[: len(before) - 1] == before[1:]
        opened.trim(opened.file.end)
        await until(lambda: len(names()) == 1)
    assert await opened.put(draft(60)) == 61
    assert rows(opened.file.path) == [61]
