"""What a power cut may not take: the settings of the disk that the promises stand on (contract 7, counting 1).

No test cuts the power, so these look at the open connections themselves.
"""

from pathlib import Path

import pytest
from sqlalchemy import Connection

from proxy.spool import writer
from runtime.database import engines
from runtime.database.engines import Database
from runtime.settings import SpoolSync

NORMAL, FULL = 1, 2


def pragma(opened: Database, name: str) -> set[object]:
    def ask(connection: Connection) -> object:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

    return {opened.write_now(ask), opened.read_now(ask)}


def test_each_commit_of_the_main_database_is_on_the_disk(tmp_path: Path) -> None:
    with engines.sqlite(tmp_path / "main.db") as opened:
        assert pragma(opened, "synchronous") == {FULL}
        assert pragma(opened, "journal_mode") == {"wal"}
        assert pragma(opened, "foreign_keys") == {1}


@pytest.mark.parametrize(("sync", "expected"), [(SpoolSync.NORMAL, NORMAL), (SpoolSync.FULL, FULL)])
def test_the_spool_is_as_safe_as_its_setting_says(tmp_path: Path, sync: SpoolSync, expected: int) -> None:
    made, _ = writer.open_folder(tmp_path, sync=sync, max_bytes=2**30)
    try:
        assert made._writer.execute("PRAGMA synchronous").fetchone() == (expected,)
        assert made._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    finally:
        made.close()
