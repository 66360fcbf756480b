"""The management API over a large installation: start-up, memory, and each call's time on the embedded default."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection, insert

from control.store import tables
from runtime import ids
from runtime.database import engines

TOLLGATE = str(Path(sys.executable).parent / "tollgate")
GROUPS, KEYS = 100_000, 1_000_000
START_S = 300
CALLS = 50
AIM_MS = 50
_BATCH = 5000
_CHILDREN = 9


def bench(folder: Path) -> int:
    """Fill, serve, call; print the table. Gives 1 where a call's median is above the aim."""
    data = folder / "data"
    made = answer("workspace", "create", "--name", "bench", "--org-prefix", "bench", "--data", str(data))
    group_ids = fill(data, made["workspace_id"], GROUPS, KEYS // GROUPS)
    began = time.monotonic()
    with served(data) as (url, process):
        print(f"start-up: {time.monotonic() - began:.1f} s, {_resident_mib(process.pid):.0f} MiB resident")
        return _measure(url, made["api_key"], group_ids)


def _measure(url: str, key: str, group_ids: list[str]) -> int:
    some = group_ids[len(group_ids) // 2 + 1]
    calls: dict[str, tuple[str, str]] = {
        "a page of 100 groups": ("GET", "/groups"),
        "the same, half way": ("GET", f"/groups?cursor={_cursor(url, key)}"),
        "a page of 1,000 groups": ("GET", "/groups?limit=1000"),
        "a group by its external id": ("GET", "/groups?external_entity_id=customer-77"),
        "a group": ("GET", f"/groups/{some}"),
        "its use of the day": ("GET", f"/groups/{some}/usage"),
        "its keys": ("GET", f"/groups/{some}/api_keys"),
        "a key minted": ("POST", f"/groups/{some}/api_keys"),
    }
    slowest = 0.0
    with httpx.Client(base_url=f"{url}/v1/gateway", headers={"Authorization": f"Api-Key {key}"}) as client:
        for name, (method, path) in calls.items():
            times_ms = sorted(_timed_ms(client, method, path) for _ in range(CALLS))
            print(f"{name:<28} p50 {statistics.median(times_ms):6.1f} ms   worst {times_ms[-1]:6.1f} ms")
            slowest = max(slowest, statistics.median(times_ms))
    print(f"aim: each under {AIM_MS} ms")
    return 0 if slowest < AIM_MS else 1


def _timed_ms(client: httpx.Client, method: str, path: str) -> float:
    began = time.perf_counter()
    answer = client.request(method, path, json={} if method == "POST" else None)
    took_ms = (time.perf_counter() - began) * 1000
    answer.raise_for_status()
    return took_ms


def _cursor(url: str, key: str) -> str:
    headers = {"Authorization": f"Api-Key {key}"}
    page = httpx.get(f"{url}/v1/gateway/groups?limit=1000", headers=headers).json()
    return str(page["pagination"]["cursor"])


def fill(data: Path, workspace_id: str, groups: int, keys_each: int) -> list[str]:
    """Write trees of ten groups and their keys as the API would have; return the groups' ids in order."""
    now = datetime.now(UTC)
    group_ids = sorted(ids.mint() for _ in range(groups))
    with engines.sqlite(data / "tollgate.db") as opened:
        opened.write_now(lambda connection: _add_endpoint(connection, workspace_id, now))
        for start in range(0, groups, _BATCH):
            numbers = range(start, min(groups, start + _BATCH))
            shared = {"workspace_id": workspace_id, "created_at": now}
            opened.write_now(partial(_add, group_ids=group_ids, numbers=numbers, keys_each=keys_each, shared=shared))
    print(f"filled {groups:,} groups with {groups * keys_each:,} keys", flush=True)
    return group_ids


def _add_endpoint(connection: Connection, workspace_id: str, now: datetime) -> None:
    target = {"provider": "BASETEN", "model_id": "abc"}
    row = {"id": ids.mint(), "workspace_id": workspace_id, "slug": "bench/m", "region": "UNRESTRICTED"}
    connection.execute(insert(tables.ENDPOINTS).values(**row, target=target, created_at=now, updated_at=now))


def _add(connection: Connection, group_ids: list[str], numbers: range, keys_each: int, shared: dict[str, Any]) -> None:
    limit = {"type": "TOKEN", "unit": "DAY", "threshold": 1_000_000}
    groups: list[dict[str, Any]] = []
    keys: list[dict[str, Any]] = []
    for number in numbers:
        root = group_ids[number - number % (_CHILDREN + 1)]
        parents = [] if root == group_ids[number] else [root]
        groups.append(
            {
                **shared,
                "id": group_ids[number],
                "external_entity_id": f"customer-{number}",
                "parent_group_id": root if parents else None,
                "root_id": root,
                "depth": len(parents),
                "ancestor_ids": parents,
                "limit_enforcement": "INDEPENDENT",
                "models": [{"slug": "bench/m", "rate_limits": [], "usage_limits": [limit]}],
            }
        )
        keys += [
            {
                **shared,
                "id": ids.mint(),
                "prefix": f"sky_{number:08}{each:04}",
                "group_id": group_ids[number],
                "sha256": f"{number:032x}{each:032x}",
            }
            for each in range(keys_each)
        ]
    connection.execute(insert(tables.GROUPS), groups)
    connection.execute(insert(tables.API_KEYS), keys)


@contextlib.contextmanager
def served(data: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve the directory for the length of a `with` block; give its address and its process."""
    serve = [TOLLGATE, "serve", "--data", str(data), "--port", "0", "--ops-port", "0", "--json"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            yield json.loads(line)["url"], process
        finally:
            process.terminate()
            process.wait(START_S)


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def answer(*words: str) -> dict[str, Any]:
    """Return what a command answers as JSON."""
    ended = subprocess.run([TOLLGATE, *words, "--json"], check=True, capture_output=True, text=True, timeout=START_S)
    made: dict[str, Any] = json.loads(ended.stdout)
    return made
