"""Starts and stops what the bench measures: upstreams, nginx as reverse proxy, and the gateway in one process."""

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
START_S = 120
STOP_S = 40
SLUG = "bench/model"
PACED, BURST = "bench/paced", "bench/burst"
"""Slugs whose upstream streams: a chunk each 4 ms, and all chunks at once."""
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
    upstream model%(port)d { server 127.0.0.1:%(upstream)d; keepalive 256; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:%(port)d;
        location / {
            proxy_pass http://model%(port)d;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering %(buffering)s;
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
        """Return how many requests it has taken, these questions left out."""
        self._asked += 1
        lines = httpx.get(f"http://127.0.0.1:{self.port}/status", trust_env=False).text.splitlines()
        return int(lines[2].split()[2]) - self._asked


class Streaming:
    """The upstream whose answers are streams, over two ports."""

    def __init__(self, paced_port: int, burst_port: int) -> None:
        self.paced_port, self.burst_port = paced_port, burst_port

    def requests(self) -> int:
        """Return how many streams it has begun."""
        return int(httpx.get(f"http://127.0.0.1:{self.paced_port}/status", trust_env=False).text)


@dataclass(frozen=True)
class Subject:
    """What is measured: a process, and the ports where its three upstreams are reached."""

    name: str
    pid: int
    port: int
    paced_port: int
    burst_port: int
    key: str

    def cpu_us(self) -> float:
        """Return the CPU time that it has taken, user and system, of all its threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Return what it holds in memory now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True)
class Gateway:
    """A gateway with one workspace, group and key, and an endpoint for each upstream."""

    port: int
    pid: int
    key: str
    data_dir: Path
    workspace_id: str

    def subject(self) -> Subject:
        """Return what is measured."""
        return Subject("embedded", self.pid, self.port, self.port, self.port, self.key)

    def total(self) -> int:
        """Return how many events of all endpoints the ledger has."""
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir}/tollgate.db?mode=ro", uri=True)) as database:
            return int(database.execute("select count(*) from usage_event").fetchone()[0])

    def ledger(self) -> tuple[int, int, int]:
        """Return the plain endpoint's events in the ledger and the sums of their input and output tokens."""
        query = (
            "select count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0)"
            " from usage_event where workspace_id = ? and model_slug = ?"
        )
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir}/tollgate.db?mode=ro", uri=True)) as database:
            counted: tuple[int, int, int] = database.execute(query, (self.workspace_id, SLUG)).fetchone()
        return counted


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
    return port


def pinned(core: int, command: list[str]) -> list[str]:
    """Return the command bound to one core, where there are two and `taskset` is here."""
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
def streaming(folder: Path) -> Iterator[Streaming]:
    """Run the upstream whose answers are streams."""
    made = Streaming(free_port(), free_port())
    words = [sys.executable, "-m", "infra.bench.paced", str(made.paced_port), str(made.burst_port)]
    log = folder / "streaming.log"
    with run_process(log, pinned(LOAD_CORE, words), dict(os.environ)) as process:
        wait_for(lambda: accepts(made.burst_port), process, log)
        yield made


@contextlib.contextmanager
def reverse_proxy(folder: Path, plain: Upstream, streams: Streaming) -> Iterator[Subject]:
    """Run nginx in front of the upstreams."""
    ports = {free_port(): target for target in (plain.port, streams.paced_port, streams.burst_port)}
    servers = [
        _PROXY % {"port": port, "upstream": target, "buffering": "on" if target == plain.port else "off"}
        for port, target in ports.items()
    ]
    first, paced, burst = ports
    with _nginx(folder, GATEWAY_CORE, "".join(servers), first) as process:
        worker = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()[0]
        yield Subject("nginx", int(worker), first, paced, burst, "none")


@contextlib.contextmanager
def gateway(folder: Path, target: Upstream, streams: Streaming, **settings: str) -> Iterator[Gateway]:
    """Run `tollgate serve` in front of the upstreams, with counting, day and rate limits on."""
    data_dir = folder / "data"
    port = free_port()
    given = {f"TOLLGATE_{name.upper()}": value for name, value in settings.items()}
    environment = os.environ | {"TOLLGATE_ALLOW_PRIVATE_UPSTREAMS": "true"} | given
    tollgate = str(Path(sys.executable).parent / "tollgate")
    serve = [tollgate, "serve", "--data", str(data_dir), "--port", str(port), "--ops-port", "0"]
    with run_process(folder / "gateway.log", pinned(GATEWAY_CORE, serve), environment) as process:
        wait_for(lambda: is_ready(port), process, folder / "gateway.log")
        workspace = create_workspace("bench", data_dir, environment)
        upstreams = {SLUG: target.port, PACED: streams.paced_port, BURST: streams.burst_port}
        key = _set_up(port, workspace["api_key"], upstreams)
        yield Gateway(port, process.pid, key, data_dir, workspace["workspace_id"])


def create_workspace(name: str, data_dir: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Make a workspace whose prefix is its name, by the command line; return what that prints."""
    create = [str(Path(sys.executable).parent / "tollgate"), "workspace", "create", "--name", name]
    made = subprocess.run(
        [*create, "--org-prefix", name, "--json", "--data", str(data_dir)],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    if made.returncode:
        raise BenchError(f"tollgate workspace create failed:\n{made.stderr}")
    workspace: dict[str, Any] = json.loads(made.stdout)
    return workspace


def management(port: int, key: str) -> httpx.Client:
    """Return a client of the management API."""
    headers = {"Authorization": f"Api-Key {key}"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}/v1/gateway", headers=headers, trust_env=False)


def _set_up(port: int, management_key: str, upstreams: dict[str, int]) -> str:
    """Make the endpoints, and a group with a key and limits on each; return the key."""
    kinds = ("REQUEST", "TOKEN")
    limits = {
        "usage_limits": [{"type": kind, "unit": "DAY", "threshold": ENOUGH} for kind in kinds],
        "rate_limits": [{"type": kind, "unit": "MINUTE", "threshold": ENOUGH} for kind in kinds],
    }
    with management(port, management_key) as client:
        for slug, upstream_port in upstreams.items():
            base_url = f"http://127.0.0.1:{upstream_port}/v1"
            target = {"provider": "OPENAI_COMPATIBLE", "base_url": base_url, "target_model": "upstream-model"}
            post(client, "/endpoints", {"slug": slug, "targets": [target]})
        models = [{"slug": slug, **limits} for slug in upstreams]
        group = post(client, "/groups", {"metadata": {"external_entity_id": "bench"}, "models": models})
        key: str = post(client, f"/groups/{group['id']}/api_keys", {})["api_key"]
    return key


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what was made. Raise BenchError where it was refused."""
    answer = client.post(path, json=body)
    if answer.status_code != 200:
        raise BenchError(f"POST {path} answered {answer.status_code}: {answer.text}")
    made: dict[str, Any] = answer.json()
    return made


@contextlib.contextmanager
def _nginx(folder: Path, core: int, http: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    folder.mkdir()
    template = string.Template((HERE / "nginx.conf").read_text(encoding="utf-8"))
    # safe: nginx's own $-variables stay as they are
    (folder / "nginx.conf").write_text(template.safe_substitute(folder=folder, http=http), encoding="utf-8")
    log = folder / "nginx.log"
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    if os.geteuid() == 0:
        command += ["-g", "user root;"]  # the temporary folder is root's own
    with run_process(log, pinned(core, command), dict(os.environ)) as process:
        wait_for(lambda: accepts(port), process, log)
        yield process


@contextlib.contextmanager
def run_process(log: Path, command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program for the length of the block, what it prints in `log`."""
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


def wait_for(come_up: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a program has come up. Raise BenchError where it has ended, or takes too long."""
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError, httpx.TransportError):
            if come_up():
                return
        time.sleep(0.1)  # another process says nothing when it is ready; the loop is bounded
    raise BenchError(f"{process.args!r} did not come up:\n{log.read_text(errors='replace')}")


def is_ready(port: int) -> bool:
    """Return whether a gateway takes traffic."""
    return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=1).status_code == 200


def accepts(port: int) -> bool:
    """Whether a connection is taken: no request, or an upstream's count would begin with it."""
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True
