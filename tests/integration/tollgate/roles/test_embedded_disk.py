"""A disk that refuses does not end the embedded server: what is done with goes later."""

import asyncio
import logging
import sqlite3
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from proxy.spool import writer
from runtime.settings import Settings
from tests.contracts.proxy.drafts import draft
from tests.integration.proxy import fake_topic as topics
from tests.integration.proxy.fake_topic import until
from tollgate.roles import embedded
from tollgate.roles.process import Work

REFUSE = "CREATE TRIGGER refuse BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"


def change(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)


async def test_an_older_file_is_emptied_once_the_disk_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(embedded, "_TRIM_EVERY_S", 0.01)
    monkeypatch.setattr(writer, "boot_id", lambda: "before")
    old, _ = topics.opened(tmp_path / "spool")
    await old.put(draft(0))
    old.close()
    change(old.file.path, REFUSE)
    monkeypatch.setattr(writer, "boot_id", lambda: "now")
    tasks: list[asyncio.Task[None]] = []

    def spawn(_name: str, work: Work) -> None:
        tasks.append(asyncio.create_task(work))

    with ExitStack() as stack:
        role = embedded.prepare(Settings(data_dir=tmp_path), stack)()
        await role.start(spawn)
        await until(lambda: any("waits for the disk" in text for text in caplog.messages))
        assert not any(task.done() for task in tasks)
        change(old.file.path, "DROP TRIGGER refuse")
        await until(lambda: topics.rows(old.file.path) == [])
        await until(lambda: any("the disk is back" in text for text in caplog.messages))
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await role.close()
