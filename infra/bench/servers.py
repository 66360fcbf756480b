"""Starts and stops what the bench measures: nginx as upstream, nginx as reverse proxy, and the gateway.

Never leaves a process behind, and listens on 127.0.0.1 alone.
"""

import contextlib
import json
import os
import shutil
import socket
import sqlite3
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parent
GATEWAY_CORE, LOAD_CORE = 0, 1
START_S = 30
STOP_S = 40
SLUG = "bench/model"
ENOUGH = 2**50
INPUT_TOKENS, OUTPUT_TOKENS = 12, 34
_ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "upstream-model",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "tok " * OUTPUT_TOKENS}, "finish_reason": "stop"}
    ],
    "usage": {
        "prompt_tokens": INPUT_TOKENS,
        "completion_tokens": OUTPUT_TOKENS,
        "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    },
}
_UPSTREAM = """
    server {
        listen 127.0.0.1:%(port)d;
        location = /status { stub_status; }
        location / { default_type application/json; return 200 '%(answer)s'; }
    }"""
_PROXY = """
    upstream model { server 127.0.0.1:%(upstream)d; keepalive 64; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }"""


class BenchError(Exception):
    """The bench cannot go on; the message is for the reader."""


class Upstream:
    """An nginx that answers every request with the same completion, and counts them."""

    def __init__(self, port: int) -> None:
        """Look at the upstream on `port`, which nobody has asked anything yet."""
        self.port = port
        self._asked = 0

    def requests(self) -> int:
        """Give how many requests it has taken, these questions left out."""
        self._asked += 1
        lines = httpx.get(f"http://127.0.0.1:{self.port}/status", trust_env=False).text.splitlines()
        return int(lines[2].split()[2]) - self._asked


@dataclass(frozen=True)
class Gateway:
    """A gateway with one workspace, endpoint, group and key."""

    port: int
    key: str
    data_dir: Path
    workspace_id: str

    def ledger(self) -> tuple[int, int, int]:
        """Give the workspace's events in the ledger and the sums of their input and output tokens."""
        query = (
            "select count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0)"
            " from usage_event where workspace_id = ?"
        )
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir}/tollgate.db?mode=ro", uri=True)) as database:
            counted: tuple[int, int, int] = database.execute(query, (self.workspace_id,)).fetchone()
        return counted


def free_port() -> int:
    """Give a port that was free a moment ago."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
    return port


def pinned(core: int, command: list[str]) -> list[str]:
    """Give the command bound to one core, where there are two and `taskset` is here."""
    if (os.cpu_count() or 1) < 2 or shutil.which("taskset") is None:
        return command
    return ["taskset", "--cpu-list", str(core), *command]


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[Upstream]:
    """Run the upstream."""
    port = free_port()
    answer = json.dumps(_ANSWER, separators=(",", ":"))
    with _nginx(folder, LOAD_CORE, _UPSTREAM % {"port": port, "answer": answer}, port):
        yield Upstream(port)


@contextlib.contextmanager
def reverse_proxy(folder: Path, target: Upstream) -> Iterator[int]:
    """Run nginx in front of the upstream; give its port."""
    port = free_port()
    with _nginx(folder, GATEWAY_CORE, _PROXY % {"port": port, "upstream": target.port}, port):
        yield port


@contextlib.contextmanager
def gateway(folder: Path, target: Upstream) -> Iterator[Gateway]:
    """Run `tollgate serve` in front of the upstream, with counting and day limits on."""
    data_dir = folder / "data"
    port = free_port()
    environment = os.environ | {"TOLLGATE_ALLOW_PRIVATE_UPSTREAMS": "true"}
    tollgate = str(Path(sys.executable).parent / "tollgate")
    serve = [tollgate, "serve", "--data", str(data_dir), "--port", str(port), "--ops-port", "0"]
    with _process(folder / "gateway.log", pinned(GATEWAY_CORE, serve), environment) as process:
        _wait(lambda: _ready(port), process, folder / "gateway.log")
        create = [tollgate, "workspace", "create", "--name", "bench", "--org-prefix", "bench", "--json"]
        made = subprocess.run(
            [*create, "--data", str(data_dir)],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=START_S,
        )
        if made.returncode:
            raise BenchError(f"tollgate workspace create failed:\n{made.stderr}")
        workspace = json.loads(made.stdout)
        key = _set_up(port, workspace["api_key"], target)
        yield Gateway(port, key, data_dir, workspace["workspace_id"])


def _set_up(port: int, management_key: str, target: Upstream) -> str:
    """Make endpoint, group and key; give the key."""
    limits = [{"type": kind, "unit": "DAY", "threshold": ENOUGH} for kind in ("REQUEST", "TOKEN")]
    headers = {"Authorization": f"Api-Key {management_key}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/v1/gateway", headers=headers, trust_env=False) as client:
        base_url = f"http://127.0.0.1:{target.port}/v1"
        upstream_target = {"provider": "OPENAI_COMPATIBLE", "base_url": base_url, "target_model": "upstream-model"}
        _post(client, "/endpoints", {"slug": SLUG, "targets": [upstream_target]})
        models = [{"slug": SLUG, "usage_limits": limits}]
        group = _post(client, "/groups", {"metadata": {"external_entity_id": "bench"}, "models": models})
        key: str = _post(client, f"/groups/{group['id']}/api_keys", {})["api_key"]
    return key


def _post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(path, json=body)
    if answer.status_code != 200:
        raise BenchError(f"POST {path} answered {answer.status_code}: {answer.text}")
    made: dict[str, Any] = answer.json()
    return made


@contextlib.contextmanager
def _nginx(folder: Path, core: int, http: str, port: int) -> Iterator[None]:
    folder.mkdir()
    template = string.Template((HERE / "nginx.conf").read_text(encoding="utf-8"))
    # safe: nginx's own $-variables stay as they are
    (folder / "nginx.conf").write_text(template.safe_substitute(folder=folder, http=http), encoding="utf-8")
    log = folder / "nginx.log"
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    if os.geteuid() == 0:
        command += ["-g", "user root;"]  # the temporary folder is root's own
    with _process(log, pinned(core, command), dict(os.environ)) as process:
        _wait(lambda: _accepts(port), process, log)
        yield


@contextlib.contextmanager
def _process(log: Path, command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(come_up: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, httpx.TransportError):
            if come_up():
                return
        time.sleep(0.1)  # another process says nothing when it is ready; the loop is bounded
    raise BenchError(f"{process.args!r} did not come up:\n{log.read_text(errors='replace')}")


def _ready(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=1).status_code == 200


def _accepts(port: int) -> bool:
    """Whether a connection is taken: no request, or an upstream's count would begin with it."""
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True
