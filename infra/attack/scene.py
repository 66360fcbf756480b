"""A real `tollgate serve` with two tenants, an upstream beside it, and attackers to let loose on it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.attack import attackers, innocent, upstream
from infra.bench import servers

_TOLLGATE = str(Path(sys.executable).parent / "tollgate")
_SPARE_S = 60


@dataclass(frozen=True)
class Scene:
    """A running gateway."""

    port: int
    pid: int
    data_dir: Path
    environment: dict[str, str]
    innocent_key: str
    attacker_key: str

    def memory_mib(self) -> float:
        """Return what the gateway holds in memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    @contextlib.contextmanager
    def attacked(self, names: Sequence[str], seconds: float) -> Iterator[dict[str, str]]:
        """Let attackers loose, each a process; they end with the block. What they were answered is there after it."""
        loose = {
            name: self._start("attackers", self.attacker_key, name, str(self.port), str(seconds)) for name in names
        }
        answered: dict[str, str] = {}
        try:
            yield answered
        finally:
            for process in loose.values():
                process.terminate()  # they tell what they have seen, and end
            for name, process in loose.items():
                answered[name] = process.communicate(timeout=_SPARE_S)[0].strip()

    def serve_innocent(self, seconds: float, per_s: float) -> dict[str, Any]:
        """Ask as the innocent tenant; return what it saw."""
        words = (str(self.port), str(seconds), str(per_s))
        process = self._start("innocent", self.innocent_key, *words)
        printed, _ = process.communicate(timeout=seconds + _SPARE_S)
        if process.returncode:
            raise servers.BenchError("the innocent tenant's program failed")
        seen: dict[str, Any] = json.loads(printed)
        return seen

    def reconciled(self) -> int:
        """Return the exit code of `tollgate reconcile`: 0 where all is counted once."""
        words = [_TOLLGATE, "reconcile", "--data", str(self.data_dir)]
        return subprocess.run(words, env=self.environment, check=False, timeout=300).returncode

    def _start(self, module: str, key: str, *words: str) -> subprocess.Popen[str]:
        command = servers.pinned(servers.LOAD_CORE, [sys.executable, "-m", f"infra.attack.{module}", *words])
        environment = os.environ | {"ATTACK_KEY": key}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


@contextlib.contextmanager
def scene(folder: Path, **settings: str) -> Iterator[Scene]:
    """Run all of it. `settings` are the gateway's, without their prefix."""
    port, upstream_port = servers.free_port(), servers.free_port()
    allowed = {"TOLLGATE_ALLOW_PRIVATE_UPSTREAMS": "true"}
    environment = os.environ | allowed | {f"TOLLGATE_{name.upper()}": value for name, value in settings.items()}
    data_dir, log, beside_log = folder / "data", folder / "gateway.log", folder / "upstream.log"
    serving = [_TOLLGATE, "serve", "--data", str(data_dir), "--port", str(port), "--ops-port", "0"]
    models = [sys.executable, "-m", "infra.attack.upstream", str(upstream_port)]
    with (
        servers.run_process(beside_log, servers.pinned(servers.LOAD_CORE, models), dict(os.environ)) as beside,
        servers.run_process(log, servers.pinned(servers.GATEWAY_CORE, serving), environment) as process,
    ):
        servers.wait_for(lambda: servers.accepts(upstream_port), beside, beside_log)
        servers.wait_for(lambda: servers.is_ready(port), process, log)
        keys = [
            _tenant(name, port, upstream_port, data_dir, environment) for name in (innocent.PREFIX, attackers.PREFIX)
        ]
        yield Scene(port, process.pid, data_dir, environment, *keys)


def _tenant(prefix: str, port: int, upstream_port: int, data_dir: Path, environment: dict[str, str]) -> str:
    """Make a workspace, its endpoints and a group without limits; return its key."""
    management_key = servers.create_workspace(prefix, data_dir, environment)["api_key"]
    base_url = f"http://127.0.0.1:{upstream_port}/v1"
    with servers.management(port, management_key) as client:
        for model in upstream.MODELS:
            target = {"provider": "OPENAI_COMPATIBLE", "base_url": base_url, "target_model": model}
            servers.post(client, "/endpoints", {"slug": f"{prefix}/{model}", "targets": [target]})
        models = [{"slug": f"{prefix}/{model}"} for model in upstream.MODELS]
        group = servers.post(client, "/groups", {"metadata": {"external_entity_id": prefix}, "models": models})
        key: str = servers.post(client, f"/groups/{group['id']}/api_keys", {})["api_key"]
    return key
