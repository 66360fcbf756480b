"""A disk that refuses does not end the embedded server: what is done with goes later."""

import asyncio
import logging
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from proxy.spool import retention, writer
from runtime.settings import Settings
from tests.contracts.proxy.drafts import draft
from tests.integration.proxy import fake_topic as topics
from tests.integration.proxy.fake_topic import until
from tests.integration.proxy.spool.kit import rows_kept_by_the_disk
from tollgate.roles import embedded
from tollgate.roles.process import Work


async def test_an_older_file_is_emptied_once_the_disk_lets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(retention, "EVERY_S", 0.01)
    monkeypatch.setattr(writer, "boot_id", lambda: "before")
    old, _ = topics.opened(tmp_path / "spool")
    await old.put(draft(0))
    old.close()
    monkeypatch.setattr(writer, "boot_id", lambda: "now")
    tasks: list[asyncio.Task[None]] = []

    def spawn(_name: str, work: Work) -> None:
        tasks.append(asyncio.create_task(work))

    with ExitStack() as stack:
        role = embedded.prepare(Settings(data_dir=tmp_path), stack)()
        with rows_kept_by_the_disk(old.file.path):
            await role.start(spawn)
            await until(lambda: any("waits for the disk" in text for text in caplog.messages))
            assert not any(task.done() for task in tasks)
        await until(lambda: topics.rows(old.file.path) == [])
        await until(lambda: any("the disk is back" in text for text in caplog.messages))
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await role.close()
