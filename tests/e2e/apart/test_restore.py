"""The database is restored by docs/operate.md, word by word, while proxies serve: nothing is lost or counts twice."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from infra.local import postgres
from runtime.config import epochs
from runtime.kafka.writer import Kafka
from schemas.daily import DailyUsage
from schemas.topics import USAGE_DAILY
from tests.architecture import sources
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.apart.lab import Lab
from tests.e2e.conftest import eventually
from tests.support import cluster as clusters
from tests.support import processes, records
from tests.support.cluster import Cluster

COUNTS = {"control": 1, "proxy": 2, "metering": 1, "webhooks": 1}
ASKING = {"model": SLUG, "messages": [{"role": "user", "content": "How are you?"}]}


def documented(heading: str) -> list[str]:
    """Return the commands of the chapter's first block below a heading, without their comments."""
    text = (sources.ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
    chapter = text.partition(f"{heading}\n")[2]
    block = re.search(r"```sh\n(.*?)```", chapter, re.DOTALL)
    assert block is not None
    return [line.partition("  #")[0].strip() for line in block[1].splitlines()]


def restore() -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the chapter's commands: up to the emptied database, to `restore-done`, the start, and the comparison."""
    commands = documented("### Restore")
    emptied = 1 + next(at for at, one in enumerate(commands) if one.startswith("psql"))
    done = 1 + commands.index("tollgate restore-done")
    started = 1 + next(at for at, one in enumerate(commands) if one.startswith("systemctl start"))
    return commands[:emptied], commands[emptied:done], commands[done:started], commands[started:]


def typed(cluster: Cluster, folder: Path, commands: list[str]) -> str:
    """Type commands as the operator; `systemctl` is the test's cluster. Return what the last one printed."""
    proxies = " ".join(f"--proxy {cluster.ops_url(name)}" for name in cluster.servers if name.startswith("proxy"))
    bins = f"{Path(processes.TOLLGATE).parent}:{Path(postgres.binary('postgres')).parent}"
    said = ""
    for command in commands:
        what, verb, *units = command.split()
        if what == "systemctl":
            for unit in units:
                name = f"{unit.partition('@')[2]}-1"
                if verb == "stop":
                    assert cluster.stop(name) == 0
                else:
                    cluster.start(name)
            continue
        environment = processes.environment(**cluster.settings)
        environment |= {"PATH": f"{bins}:{environment['PATH']}", "PROXIES": proxies}
        ended = subprocess.run(
            ["bash", "-ec", command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
        said = ended.stdout
    return said


def called(proxy: str, key: str) -> int:
    with httpx.Client(timeout=60) as client:
        return called_by(client, proxy, key)


def called_by(client: httpx.Client, proxy: str, key: str) -> int:
    headers = {"Authorization": f"Api-Key {key}"}
    return client.post(f"{proxy}/v1/chat/completions", headers=headers, json=ASKING).status_code


def call(lab: Lab, key: str, times: int) -> None:
    proxies = [lab.cluster.proxies[number % 2] for number in range(times)]
    with httpx.Client(timeout=60) as client, ThreadPoolExecutor(8) as threads:  # one client: each costs 20 ms of CPU
        assert set(threads.map(partial(called_by, client), proxies, [key] * times)) == {200}


def asked(log: Path) -> bool:
    """Whether a proxy has asked a database without tables for changes."""
    return "the configuration's fallback waits for the database: relation" in log.read_text(encoding="utf-8")


async def newest_daily(where: Kafka) -> dict[bytes, DailyUsage]:
    """Return what finance believes: each key's highest version."""
    found: dict[bytes, DailyUsage] = {}
    for some in (await records.read(where, USAGE_DAILY)).values():
        for record in some:
            usage = DailyUsage.model_validate_json(record.value)
            if record.key not in found or usage.version > found[record.key].version:
                found[record.key] = usage
    return found


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("calls", [100, pytest.param(5_000, marks=pytest.mark.long)])
async def test_a_backup_is_restored_by_the_book(kafka: Kafka, postgres_url: str, tmp_path: Path, calls: int) -> None:
    day_limit = {"type": "REQUEST", "unit": "DAY", "threshold": 3 * calls + 12}
    with clusters.running(tmp_path, kafka, postgres_url, COUNTS) as cluster, labs.on(cluster, tmp_path) as lab:
        group, key = lab.customer("acme", usage_limits=[day_limit])
        revoked, later = (lab.api("POST", f"/groups/{group}/api_keys", {})["api_key"] for _ in range(2))
        for proxy in cluster.proxies:
            eventually(lambda proxy=proxy: called(proxy, later) == 200)  # type: ignore[misc]
        call(lab, key, calls)
        typed(cluster, tmp_path, documented("## Backups and restores"))
        call(lab, key, calls)
        made = lab.api("POST", f"/groups/{group}/api_keys", {})["api_key"]
        lab.api("DELETE", f"/groups/{group}/api_keys/{revoked[:16]}")
        eventually(lambda: [called(proxy, made) for proxy in cluster.proxies] == [200, 200])
        lab.published()
        empties, restores, starts, compares = restore()
        typed(cluster, tmp_path, empties)
        if calls > 1_000:  # a restore takes long enough for the proxies to ask the database, which has no tables now
            eventually(lambda: all(asked(tmp_path / f"proxy-{number}.log") for number in (1, 2)))
        typed(cluster, tmp_path, restores)
        call(lab, key, calls)  # proxies go on
        typed(cluster, tmp_path, starts)
        lab.published()
        typed(cluster, tmp_path, compares)

        eventually(lambda: [called(proxy, made) for proxy in cluster.proxies] == [401, 401])
        assert [called(proxy, one) for proxy in cluster.proxies for one in (revoked, later)] == [401, 200, 401, 200]
        code, report = lab.reconcile()
        assert (code, report["agrees"], report["gaps"]) == (0, True, []), report
        served = sum(day["ledger"]["requests"] for day in report["days"])
        assert served >= 3 * calls + 4
        daily = await newest_daily(kafka)
        assert sum(usage.requests for usage in daily.values()) == served
        assert all(epochs.of(usage.version) == 1 for usage in daily.values()), "finance believes the restored database"
        left = day_limit["threshold"] - served
        assert 0 < left < 12
        assert [called(cluster.proxies[0], key) for _ in range(left + 2)].count(200) == left, "no limit was loosened"
        brought = lab.received()
        assert len(brought) >= served, "what was delivered in the lost time is delivered again, by the same keys"
