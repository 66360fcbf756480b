"""Services started on this machine: they come up, keep their data, and leave no process."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.local import kafka, postgres, process, redis
from infra.local.process import LocalError
from tests.support import services


@pytest.fixture
def folder() -> Iterator[Path]:
    with services.folder("local") as made:
        yield made


async def topics(bootstrap: str, *made: str) -> list[str]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        if made:
            await client.create_topics([NewTopic(name, 1, 1) for name in made])
        return [name for name in await client.list_topics() if not name.startswith("__")]
    finally:
        await client.close()


def ended(one: process.Process) -> bool:
    """Whether no process of its group is left, within a bound: what was killed takes a moment to go."""
    deadline = time.monotonic() + 60
    while any(group == one.popen.pid for group in running_groups()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def running_groups() -> Iterator[int]:
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, group = path.read_text(encoding="utf-8").rpartition(")")[2].split()[:3]
            if state != "Z":  # it has ended; nobody has asked for its exit code
                yield int(group)


@pytest.mark.usefixtures("kafka_installed")
def test_kafka_comes_back_with_its_data_after_a_kill_and_after_a_stop(folder: Path) -> None:
    with kafka.running(folder) as broker:
        asyncio.run(topics(broker.bootstrap, "kept"))
        first = broker.process
        first.kill()
        assert ended(first)
        assert not kafka.brokers(broker.port)
        broker.start()
        assert asyncio.run(topics(broker.bootstrap)) == ["kept"]
        broker.process.pause()
        broker.stop()  # also while it is paused
        assert ended(broker.process)
    with kafka.running(folder, broker.port) as again:
        assert again.bootstrap == broker.bootstrap
        assert asyncio.run(topics(again.bootstrap)) == ["kept"]
    assert ended(again.process)


@pytest.mark.usefixtures("postgres_installed")
def test_postgres_comes_back_with_its_data_after_a_kill_and_after_a_stop(folder: Path) -> None:
    with postgres.running(folder) as server:
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            assert connection.execute("SHOW max_connections").fetchone() == ("300",)
            connection.execute("CREATE TABLE kept AS SELECT 7 AS a")
        first = server.process
        first.kill()
        server.start()
        left_open = psycopg.connect(server.url)
        server.stop()  # also while a client is connected
        left_open.close()
        assert ended(first)
    with postgres.running(folder, server.port, durable=False) as again, psycopg.connect(again.url) as connection:
        assert connection.execute("SELECT a FROM kept").fetchone() == (7,)
        assert connection.execute("SHOW fsync").fetchone() == ("off",)
    assert ended(again.process)


@pytest.mark.usefixtures("postgres_installed")
def test_postgres_data_lie_elsewhere_where_its_user_cannot_reach_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_reaches", lambda path, user: False)
    monkeypatch.setattr(postgres, "_ELSEWHERE", folder)
    closed = tmp_path / "closed"
    with postgres.running(closed) as server, psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS a")
    if os.geteuid() == 0:
        assert (closed / "data").resolve().parent == folder
    with postgres.running(closed) as again, psycopg.connect(again.url) as connection:
        assert connection.execute("SELECT a FROM kept").fetchone() == (7,)


def test_a_user_reaches_what_is_open_to_all_on_the_way(tmp_path: Path) -> None:
    closed, stranger = tmp_path / "closed", 54321
    (closed / "below").mkdir(parents=True)
    assert postgres._reaches(Path("/tmp"), stranger)
    closed.chmod(0o700)
    assert not postgres._reaches(closed / "below", stranger)


@pytest.mark.usefixtures("kafka_installed")
def test_brokers_start_from_the_classes_that_were_kept() -> None:
    words = ["java", "-Xshare:on", f"-XX:SharedArchiveFile={kafka.CLASSES}", "-cp", f"{kafka.JARS}/*"]  # on: or it ends
    ended = subprocess.run(
        [*words, "kafka.tools.StorageTool", "random-uuid"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout


@pytest.mark.usefixtures("redis_installed")
def test_redis_answers_again_after_a_kill(folder: Path) -> None:
    with redis.running(folder) as server:
        server.process.kill()
        server.start()
    assert ended(server.process)


def test_a_program_that_ends_at_its_start_says_why(tmp_path: Path) -> None:
    started = process.start("Unlucky", ["sh", "-c", "echo the port is taken; exit 3"], tmp_path / "log")
    with pytest.raises(LocalError, match="Unlucky ended with exit code 3:\nthe port is taken"):
        started.until(lambda: not started.alive(), 10)  # another program on its port may seem to be it


def test_a_program_that_never_gets_ready_is_named_with_its_output(tmp_path: Path) -> None:
    started = process.start("Sleeper", ["sh", "-c", "echo half awake; sleep 60"], tmp_path / "log")
    try:
        started.until(lambda: started.tail() != "", 60)
        with pytest.raises(LocalError, match="Sleeper was not ready within 0 s:\nhalf awake"):
            started.until(lambda: False, 0)
    finally:
        started.kill()
    assert ended(started)


def test_a_program_that_will_not_end_is_ended_with_its_children(tmp_path: Path) -> None:
    deaf = process.start("Deaf", ["sh", "-c", "trap '' TERM; echo up; sleep 60; sleep 60"], tmp_path / "log")
    deaf.until(lambda: deaf.tail() == "up", 60)
    deaf.stop(within_s=0.1)
    assert ended(deaf)


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    first, second = process.free_ports(2)
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="utf-8").split()[0])
    assert first != second
    assert max(first, second) < lowest
