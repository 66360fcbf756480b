"""What a power cut may not take: the settings of the disk that the promises stand on (contract 7, counting 1).

No test cuts the power, so these look at the open connections themselves, and at what is asked of the system.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from proxy.spool import writer
from runtime.database import engines
from runtime.database.engines import Database
from runtime.settings import SpoolSync
from tests.contracts.proxy.drafts import draft
from tests.integration.proxy.fake_topic import until

FULL = 2


def pragma(opened: Database, name: str) -> set[object]:
    def ask(connection: Connection) -> object:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

    return {opened.write_now(ask), opened.read_now(ask)}


def test_each_commit_of_the_main_database_is_on_the_disk(tmp_path: Path) -> None:
    with engines.sqlite(tmp_path / "main.db") as opened:
        assert pragma(opened, "synchronous") == {FULL}
        assert pragma(opened, "journal_mode") == {"wal"}
        assert pragma(opened, "foreign_keys") == {1}


@pytest.mark.parametrize("sync", SpoolSync)
async def test_the_spool_is_as_safe_as_its_setting_says(
    tmp_path: Path, sync: SpoolSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached: list[int] = []
    fdatasync, fsync = os.fdatasync, os.fsync

    def noted(file: int, call: Callable[[int], None]) -> None:
        call(file)
        reached.append(os.fstat(file).st_size)

    monkeypatch.setattr(os, "fdatasync", lambda file: noted(file, fdatasync))
    monkeypatch.setattr(os, "fsync", lambda file: noted(file, fsync))
    monkeypatch.setattr(writer, "_TIDY_EVERY_S", 0.01)
    made, _ = writer.open_folder(tmp_path, sync=sync, max_bytes=2**30)
    reached.clear()
    await made.put(draft())
    size = made.file.segments.size_bytes()
    assert reached == ([size] if sync is SpoolSync.FULL else []), "when the event was durable"
    maintaining = asyncio.create_task(made.maintain())
    await until(lambda: size in reached)
    maintaining.cancel()
    await asyncio.gather(maintaining, return_exceptions=True)
    made.close()
