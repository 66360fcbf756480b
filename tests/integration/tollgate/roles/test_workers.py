"""`tollgate serve proxy --workers`: one port, a dead worker is replaced, a left one's events are published."""

import asyncio
import base64
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local import parts
from proxy.spool.file import FOLDER
from proxy.spool.writer import open_folder
from runtime.config import records as config_records
from runtime.kafka.writer import Kafka, Writer
from runtime.settings import SpoolSync
from schemas.topics import GATEWAY_CONFIG, USAGE_EVENTS
from tests.contracts.proxy.drafts import draft
from tests.faults.scene import until
from tests.support import processes, records
from tollgate.roles import workers

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def settings(kafka: Kafka) -> dict[str, str]:
    """The settings of proxies on a configuration that is read to its end at once."""
    asyncio.run(_configure(kafka))
    shared = parts.settings(kafka.bootstrap, "", base64.b64encode(os.urandom(32)).decode())
    del shared["database_url"]
    return shared | {"kafka_topic_prefix": kafka.prefix}


async def _configure(kafka: Kafka) -> None:
    await records.make_topics(kafka)
    writer = Writer(kafka, "test")
    await writer.write(GATEWAY_CONFIG, [config_records.heartbeat(1, datetime.now(UTC))], 60)
    await writer.close()


def _serve(folder: Path, settings: dict[str, str], *words: str) -> Any:
    listens = ("--port", "0", "--ops-port", "0", "--data", str(folder / "data"))
    return processes.server(folder / "proxy.log", "serve", "proxy", *listens, *words, **settings)


def _answers(url: str, path: str = "/healthz") -> bool:
    try:
        return httpx.get(f"{url}{path}", trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def _workers(supervisor: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()]


def test_a_worker_that_is_killed_is_replaced_while_the_others_serve(tmp_path: Path, settings: dict[str, str]) -> None:
    with _serve(tmp_path, settings, "--workers", "2", "--rate-limits-per-worker") as server:
        url, ops = server.announced["url"], server.announced["ops_urls"]
        assert len(ops) == 2
        assert server.announced["ops_url"] == ops[0]
        killed, other = _workers(server.process.pid)
        os.kill(killed, signal.SIGKILL)
        until(lambda: killed not in _workers(server.process.pid), "the killed worker gone", 30)
        assert _answers(url)
        until(lambda: all(_answers(each, "/readyz") for each in ops), "both ready again, where they were", 60)
        assert other in _workers(server.process.pid)
        served = _workers(server.process.pid)
        assert server.stop() == 0
    assert not [pid for pid in served if Path(f"/proc/{pid}").exists()]


def test_workers_end_with_their_supervisor_however_that_ends(tmp_path: Path, settings: dict[str, str]) -> None:
    with _serve(tmp_path, settings, "--workers", "2", "--rate-limits-per-worker") as server:
        serving = _workers(server.process.pid)
        server.kill()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in serving), "the workers gone", 60)


def test_what_a_worker_left_is_published_by_fewer(tmp_path: Path, settings: dict[str, str], kafka: Kafka) -> None:
    data = tmp_path / "data"
    left = [draft(), draft()]

    async def leave() -> None:
        spool, _ = open_folder(workers.folder(data, 3) / FOLDER, sync=SpoolSync.NORMAL, max_bytes=2**30)
        for each in left:
            await spool.put(each)
        spool.close()

    asyncio.run(leave())
    assert workers.left_behind(data, 2) == [3]
    with _serve(tmp_path, settings) as server:
        assert len(server.announced["ops_urls"]) == 1
        until(lambda: len(_workers(server.process.pid)) == 1, "the one that leaves gone", 60)
        assert _answers(server.announced["url"])
    assert workers.left_behind(data, 1) == []
    found = asyncio.run(records.read(kafka, USAGE_EVENTS))
    assert sum(map(len, found.values())) == len(left)
    with _serve(tmp_path, settings) as server:
        assert "ops_urls" not in server.announced, "nothing is left: it is one process again"
