"""The spool on real SQLite files: full disks, locks, bounds, and the end of each (counting 1)."""

import asyncio
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import pytest

from proxy.core.calls import SpoolUnavailableError
from proxy.spool import writer
from proxy.spool.writer import Spool
from runtime.settings import SpoolSync
from tests.contracts.proxy.drafts import draft
from tests.integration.proxy.fake_topic import rows, until
from tests.integration.proxy.spool.kit import (
    keys,
    maintained,
    size,
    statements,
    until_asked,
    until_blocked_is,
    until_looked_after,
)


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
        asked = statements(opened)
        putting = [opened.put(draft(number)) for number in range(2)]
        await until_asked(asked, 2, "BEGIN")
        putting.append(opened.put(draft(2)))
        await until_asked(asked, 4, "BEGIN")
        assert not any(each.done() for each in putting)
        other.execute("ROLLBACK")
        assert await asyncio.gather(*putting) == [1, 2, 3]
    assert opened.blocked is None


async def test_a_lock_that_stays_is_given_up_at_its_bound_and_forgotten_when_it_goes(
    quick: None, opened: Spool
) -> None:
    async with maintained(opened):
        with closing(sqlite3.connect(opened.file.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SpoolUnavailableError, match="locked"):
                await opened.put(draft(0))
            assert "locked" in (opened.blocked or "")
            await until_looked_after(opened)
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
            asked = statements(opened)
            opened.trim(3)
            await until_asked(asked, 2, "DELETE")
            assert rows(opened.file.path) == [1, 2, 3]
            other.execute("ROLLBACK")
        await until(lambda: rows(opened.file.path) == [3])


async def test_a_file_that_is_gone_blocks(quick: None, opened: Spool) -> None:
    await opened.put(draft(0))
    opened.file.path.with_name(f"{opened.file.path.name}-wal").unlink()
    async with maintained(opened):
        opened._path = opened.file.path.parent / "nowhere" / "x.spool"
        await until_blocked_is(opened, blocked=True)


class _Noted(sqlite3.Connection):
    """A connection that notes which checkpoints it asks for."""

    asked: ClassVar[list[str]] = []

    def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
        if "checkpoint" in statement:
            self.asked.append(statement)
        return super().execute(statement, *parameters)


async def test_a_long_log_is_begun_anew_though_writers_wait_and_a_short_one_is_not(
    quick: None, opened: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(_Noted, "asked", asked)
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=_Noted))
    await opened.put(draft(0))
    async with maintained(opened):
        await until_looked_after(opened)
        assert set(asked) == {"PRAGMA wal_checkpoint(PASSIVE)"}
        monkeypatch.setattr(writer, "_WAL_RESTART_BYTES", size(Path(f"{opened.file.path}-wal")) - 1)
        await until_looked_after(opened)
        assert set(asked) == {"PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(RESTART)"}


async def test_the_log_is_checkpointed_and_does_not_grow_for_ever(
    quick: None, opened: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_WAL_RESTART_BYTES", 100_000)
    log = Path(f"{opened.file.path}-wal")

    async def put_some(first: int) -> None:
        for number in range(first, first + 60):
            await opened.put(draft(number, padding=2_000))

    await put_some(0)
    of_some = size(log)
    assert of_some > 100_000
    async with maintained(opened):
        for first in range(60, 300, 60):
            await until_looked_after(opened)
            await put_some(first)
    assert size(log) < 2 * of_some
    assert len(rows(opened.file.path)) == 300
