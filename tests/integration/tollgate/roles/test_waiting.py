"""A role that starts before its database or its broker waits for it, and ends when it is asked to while it waits."""

import base64
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from infra.local import kafka as local_kafka
from infra.local import parts, postgres, process
from infra.local.kafka import Broker
from infra.local.postgres import Server
from tests.support import processes, services

WITHIN_S = 90
MASTER_KEY = base64.b64encode(bytes(32)).decode()
NOWHERE = "127.0.0.1:1"


class Waiting:
    """A process, and what its operator's port says."""

    def __init__(self, running: processes.Process, ops_port: int, log: Path) -> None:
        self.running = running
        self.log = log
        self._url = f"http://127.0.0.1:{ops_port}"

    def answer(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(f"{self._url}{path}", timeout=5)
        except httpx.TransportError:
            return None

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not holds():
            assert self.running.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)  # another process says nothing; the loop is bounded

    def lacks(self, what: str) -> bool:
        """Whether it is alive, not ready, and names what it lacks."""
        ready, alive = self.answer("/readyz"), self.answer("/healthz")
        return ready is not None and ready.status_code == 503 and what in ready.text and alive is not None

    def is_ready(self) -> bool:
        ready = self.answer("/readyz")
        return ready is not None and ready.status_code == 200

    def ends(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.running.send_signal(number)
        return self.running.wait(WITHIN_S)


@contextmanager
def serving(folder: Path, role: str, bootstrap: str, database_url: str) -> Iterator[Waiting]:
    (port,) = process.free_ports(1)
    settings = parts.settings(bootstrap, database_url, MASTER_KEY)
    words = parts.Part(role, role, folder / role).words(0, port)
    log = folder / f"{role}.log"
    running = processes.start(*words, settings=settings, stdout=Path(os.devnull), stderr=log)
    try:
        yield Waiting(running, port, log)
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def database(postgres_installed: None) -> Iterator[Server]:
    """A server whose database is migrated, and that is stopped."""
    with services.folder("late") as folder:
        server = postgres.at(folder, durable=False)
        with process.running(server):
            settings = {"database_url": server.url}
            processes.run("migrate", check=False, settings=settings)  # the schema comes first; there is no Kafka yet
        yield server
        server.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("role", ["control", "metering", "webhooks"])
def test_it_waits_for_its_database(database: Server, tmp_path: Path, role: str) -> None:
    with serving(tmp_path, role, NOWHERE, database.url) as waiting:
        waiting.until(lambda: waiting.lacks('"database":"waits for it: the database in PostgreSQL 127.0.0.1:'))
        assert "the start waits for the database: " in waiting.log.read_text()
        database.start()
        if role == "control":  # its API answers without Kafka
            waiting.until(waiting.is_ready)
        else:
            waiting.until(lambda: waiting.lacks("starting or stopping"))
            waiting.until(lambda: "the start waits for Kafka: " in waiting.log.read_text())
        assert "the start goes on: the database is back" in waiting.log.read_text()
        assert waiting.ends() == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_it_waits(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path, "control", NOWHERE, f"postgresql://nobody@{NOWHERE}/none") as waiting:
        waiting.until(lambda: waiting.lacks("waits for it"))
        metrics = waiting.answer("/metrics")
        assert metrics is not None
        assert "tollgate_ready 0.0" in metrics.text
        assert waiting.ends(number) == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_schema_that_is_not_there_is_not_waited_for(postgres_url: str, tmp_path: Path) -> None:
    with serving(tmp_path, "control", NOWHERE, postgres_url) as waiting:
        assert waiting.running.wait(WITHIN_S) == 1
        assert "run 'tollgate migrate'" in waiting.log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_login_that_is_refused_is_not_waited_for(postgres_url: str, tmp_path: Path) -> None:
    at = urlsplit(postgres_url)
    unknown = f"postgresql://nobody-of-that-name@{at.hostname}:{at.port}{at.path}"
    with serving(tmp_path, "control", NOWHERE, unknown) as waiting:
        assert waiting.running.wait(WITHIN_S) == 1
        (line,) = waiting.log.read_text().splitlines()
        assert line.endswith('role "nobody-of-that-name" does not exist')


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_waits_for_its_broker(kafka_installed: None, postgres_migrated_url: str, tmp_path: Path) -> None:
    broker: Broker = local_kafka.at(tmp_path / "kafka")
    with serving(tmp_path, "metering", broker.bootstrap, postgres_migrated_url) as waiting:
        waiting.until(lambda: "the start waits for Kafka: " in waiting.log.read_text())
        assert waiting.lacks("starting or stopping")
        with process.running(broker), serving(tmp_path, "control", broker.bootstrap, postgres_migrated_url):
            waiting.until(waiting.is_ready)
            assert waiting.ends() == 0
