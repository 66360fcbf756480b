"""A real `tollgate serve` with two tenants, an upstream beside it, and attackers to let loose on it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.attack import attackers, innocent, upstream
from infra.bench import servers

_TOLLGATE = str(Path(sys.executable).parent / "tollgate")
_SPARE_S = 60
SPARE_DESCRIPTORS = 10
"""More than at rest that are nobody's: of connections to upstreams that are kept for the next request."""
_LOOK_EVERY_S = 0.5
_GONE_WITHIN_S = 60.0
"""From the attackers' end until nothing of theirs is open any more: that much a drain takes, and a kept connection."""
LAST_IN_LINE = ("nice", "-n", "19")
"""Attackers and their upstream are on the innocent tenant's core: what they use there is not the server's doing."""


@dataclass(frozen=True)
class Scene:
    """A running gateway."""

    port: int
    pid: int
    data_dir: Path
    environment: dict[str, str]
    innocent_key: str
    attacker_key: str
    descriptors_at_rest: int

    def memory_mib(self) -> float:
        """Return what the gateway holds in memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def descriptors(self) -> int:
        """Return how many files and sockets it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def left_open(self) -> int:
        """Return how many more descriptors are open than at rest, once all have gone or their time to go is over."""
        until = time.monotonic() + _GONE_WITHIN_S
        while (more := self.descriptors() - self.descriptors_at_rest) > SPARE_DESCRIPTORS and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)  # another process says nothing when it has let go; the loop is bounded
        return more

    def cpu_s(self) -> float:
        """Return how many seconds of a processor it has used since it began, the kernel's on its behalf included."""
        after_name = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")

    @contextlib.contextmanager
    def attacked(self, names: Sequence[str], seconds: float) -> Iterator[dict[str, str]]:
        """Let attackers loose, each a process; they end with the block. What they were answered is there after it."""
        loose = {
            name: self._start("attackers", self.attacker_key, name, str(self.port), str(seconds), before=LAST_IN_LINE)
            for name in names
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

    def _start(self, module: str, key: str, *words: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        command = servers.pinned(servers.LOAD_CORE, [*before, sys.executable, "-m", f"infra.attack.{module}", *words])
        environment = os.environ | {"ATTACK_KEY": key}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)


@contextlib.contextmanager
def scene(folder: Path, **settings: str) -> Iterator[Scene]:
    """Run all of it. `settings` are the gateway's, without their prefix."""
    port = servers.free_port()
    allowed = {"TOLLGATE_ALLOW_PRIVATE_UPSTREAMS": "true"}
    environment = os.environ | allowed | {f"TOLLGATE_{name.upper()}": value for name, value in settings.items()}
    data_dir, log = folder / "data", folder / "gateway.log"
    serving = [_TOLLGATE, "serve", "--data", str(data_dir), "--port", str(port), "--ops-port", "0"]
    with (
        _upstream(folder / "innocent-upstream.log") as innocent_upstream,
        _upstream(folder / "attackers-upstream.log", *LAST_IN_LINE) as attackers_upstream,
        servers.run_process(log, servers.pinned(servers.GATEWAY_CORE, serving), environment) as process,
    ):
        servers.wait_for(lambda: servers.is_ready(port), process, log)
        upstreams = {innocent.PREFIX: innocent_upstream, attackers.PREFIX: attackers_upstream}
        innocent_key, attacker_key = (
            _tenant(name, port, beside, data_dir, environment) for name, beside in upstreams.items()
        )
        at_rest = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        yield Scene(port, process.pid, data_dir, environment, innocent_key, attacker_key, at_rest)


@contextlib.contextmanager
def _upstream(log: Path, *before: str) -> Iterator[int]:
    """Run an upstream of one tenant alone; give its port."""
    port = servers.free_port()
    command = [*before, sys.executable, "-m", "infra.attack.upstream", str(port)]
    with servers.run_process(log, servers.pinned(servers.LOAD_CORE, command), dict(os.environ)) as process:
        servers.wait_for(lambda: servers.accepts(port), process, log)
        yield port


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
