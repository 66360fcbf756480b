"""`./run cluster`: it comes up, goes on with its data, ends in order, and says who ended by itself."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from infra.local import kafka, redis
from tests.architecture import sources
from tests.support import processes, services

pytestmark = pytest.mark.timeout(600)
START_S = 120


@pytest.fixture
def folder(kafka_installed: None, postgres_installed: None, redis_installed: None) -> Iterator[Path]:
    with services.folder("cluster") as made:
        yield made


class Running:
    """`./run cluster` as a process of its own."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.said = folder / "said"
        with self.said.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "infra.cluster", "--data", str(folder / "data"), "--json", *words],
                cwd=sources.ROOT,
                env=processes.environment(),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.said.read_text(encoding="utf-8")
        self.addresses: dict[str, Any] = json.loads(line)

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        self.process.communicate(timeout=START_S)
        return self.process.returncode


def mentioning(text: str) -> list[int]:
    """Return the processes whose command names `text`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_text(encoding="utf-8", errors="replace"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has just ended
    return found


def test_a_cluster_comes_up_goes_on_with_its_data_and_leaves_nothing_running(folder: Path) -> None:
    first = Running(folder)
    ops = first.addresses["ops"]
    assert sorted(ops) == ["control-1", "metering-1", "metering-2", "proxy-1", "proxy-2", "webhooks-1", "webhooks-2"]
    assert {httpx.get(f"{url}/readyz", timeout=10).status_code for url in ops.values()} == {200}
    for name, url in ops.items():
        if name.startswith("proxy"):
            assert "tollgate_rate_windows_shared 1.0" in httpx.get(f"{url}/metrics", timeout=10).text
    environment = first.addresses["environment"]
    assert Path(environment).stat().st_mode & 0o077 == 0
    program = (sources.ROOT / "docs/finance.md").read_text(encoding="utf-8")
    read = re.findall(r"os\.environ\.get\(\"(\w+)\"", program)
    assert read
    for name in read:
        given = ["sh", "-c", f'. {environment} && exec printenv "{name}"']
        value = subprocess.check_output(given, env={"PATH": os.environ["PATH"]}, text=True).strip()
        schemas = str(folder / "data" / "schemas")
        assert value == {"KAFKA_BOOTSTRAP": first.addresses["kafka"], "TOPIC_PREFIX": "", "SCHEMAS": schemas}[name]
    assert (folder / "data" / "schemas" / "usage.events.v1.json").is_file()
    lab = ["workspace", "create", "--name", "lab", "--org-prefix", "lab", "--json"]
    command = f'. {environment} && exec "$@"'
    create = ["sh", "-c", command, "sh", processes.TOLLGATE, *lab]
    key = json.loads(subprocess.check_output(create, env=processes.environment(), text=True))["api_key"]
    assert first.end(signal.SIGTERM) == 0, first.said.read_text(encoding="utf-8")
    assert not mentioning(str(folder / "data"))

    second = Running(folder)
    assert (first.addresses["is_new"], second.addresses["is_new"]) == (True, False)
    assert second.addresses["control"] == first.addresses["control"]
    assert second.addresses["proxies"] == first.addresses["proxies"]
    headers = {"Authorization": f"Api-Key {key}"}
    kept = httpx.get(f"{second.addresses['control'][0]}/v1/gateway/groups", headers=headers, timeout=10)
    assert kept.status_code == 200, kept.text
    (proxy,) = mentioning(str(folder / "data" / "proxy-2"))
    os.kill(proxy, signal.SIGKILL)
    assert second.wait() == 1
    assert "proxy-2 ended with exit code -9" in second.said.read_text(encoding="utf-8")
    assert not mentioning(str(folder / "data"))


@pytest.mark.long
def test_a_secure_cluster_lets_nobody_in_without_a_password_and_says_what_is_its_own(folder: Path) -> None:
    running = Running(folder, "--secure")
    environment = running.addresses["environment"]
    assert {"kafka_bootstrap", "kafka_sasl_password", "database_url", "redis_url", "master_key"} < set(
        running.addresses["own"]
    )
    password = (folder / "data" / "certificates" / "password").read_text(encoding="ascii")
    assert password not in json.dumps(running.addresses)
    doctor = ["sh", "-c", f". {environment} && exec {processes.TOLLGATE} doctor --json"]
    findings = json.loads(subprocess.check_output(doctor, env=processes.environment(), text=True))
    assert {finding["what"]: finding["problems"] for finding in findings if finding["problems"]} == {}
    assert not kafka.brokers(int(running.addresses["kafka"].rpartition(":")[2]))
    assert not redis.answers(int(running.addresses["redis"].rpartition(":")[2].partition("/")[0]))
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(running.addresses["database"].partition("?")[0] + "?sslmode=disable")
    assert running.end(signal.SIGTERM) == 0, running.said.read_text(encoding="utf-8")
    plain = [sys.executable, "-m", "infra.cluster", "--data", str(folder / "data")]
    refused = subprocess.run(plain, cwd=sources.ROOT, capture_output=True, text=True, timeout=START_S, check=False)
    assert refused.returncode == 1
    assert "holds services with TLS: start them with --secure" in refused.stderr
