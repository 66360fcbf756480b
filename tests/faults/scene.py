"""A gateway that can be killed and started again, between a mock upstream with an account and a real receiver."""

import json
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support import processes

SLUG = "lab/model"
WITHIN_S = 120


@dataclass
class Scene:
    """One lab; its gateway is `start`ed and `kill`ed over and over on the same data directory."""

    folder: Path
    management_key: str
    secret: str
    upstream: str
    stack: ExitStack
    gateway: processes.Server | None = None
    settings: dict[str, str] = field(default_factory=lambda: {"webhook_linger_ms": "50"})

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def account(self) -> Path:
        return self.folder / "account.jsonl"

    @property
    def url(self) -> str:
        assert self.gateway is not None
        url: str = self.gateway.announced["url"]
        return url

    def start(self) -> None:
        serve = ("serve", "--data", str(self.data), "--port", "0", "--ops-port", "0")
        running = processes.server(self.folder / "serve.log", *serve, **self.settings)
        self.gateway = self.stack.enter_context(running)

    def kill(self) -> None:
        assert self.gateway is not None
        self.gateway.kill()

    def stop(self) -> None:
        assert self.gateway is not None
        assert self.gateway.stop() == 0

    def receive(self, port: int = 0) -> str:
        """Start the lab's receiver; return its URL."""
        words = ("webhook", "listen", "--secret", self.secret, "--out", str(self.folder / "received.jsonl"))
        running = processes.server(self.folder / "listen.log", *words, "--port", str(port))
        url: str = self.stack.enter_context(running).announced["url"]
        return url

    def deliver_to(self, url: str) -> None:
        processes.answer("workspace", "set-webhook", "--workspace", "lab", "--url", url, "--data", str(self.data))

    def post(self, path: str, body: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Api-Key {self.management_key}"}
        answer = httpx.post(f"{self.url}/v1/gateway{path}", headers=headers, json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        decoded: dict[str, Any] = answer.json()
        return decoded

    def onboard(self) -> None:
        target = {"provider": "OPENAI_COMPATIBLE", "base_url": self.upstream, "target_model": "mock"}
        self.post("/endpoints", {"slug": SLUG, "targets": [target]})

    def customer(self, name: str, **limits: Any) -> str:
        """Make a group that may call SLUG; return a key of it."""
        group = self.post("/groups", {"metadata": {"external_entity_id": name}, "models": [{"slug": SLUG, **limits}]})
        key: str = self.post(f"/groups/{group['id']}/api_keys", {})["api_key"]
        return key

    def call(self, key: str, *, stream: bool = False) -> httpx.Response:
        """Call the gateway and read the whole answer."""
        return httpx.post(self.completions, headers=authorized(key), json=asking(stream=stream), timeout=WITHIN_S)

    @property
    def completions(self) -> str:
        return f"{self.url}/v1/chat/completions"

    def rows(self, query: str) -> list[sqlite3.Row]:
        """Ask the database."""
        with closing(sqlite3.connect(f"file:{self.data / 'tollgate.db'}?mode=rw", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query).fetchall()

    def events(self) -> list[sqlite3.Row]:
        return self.rows("SELECT * FROM usage_event ORDER BY sequence")

    def received(self) -> dict[str, set[str]]:
        """Return each event's key with the ids of the deliveries that brought it."""
        brought: dict[str, set[str]] = {}
        path = self.folder / "received.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            receipt = json.loads(line)
            assert receipt["verified"], receipt["problem"]
            headers = {name.lower(): value for name, value in receipt["headers"].items()}
            for event in json.loads(receipt["body"])["data"]["events"]:
                brought.setdefault(event["idempotencyKey"], set()).add(headers["webhook-id"])
        return brought

    def receipts(self) -> int:
        path = self.folder / "received.jsonl"
        return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0

    def reconcile(self, *words: str) -> tuple[int, dict[str, Any]]:
        ended = processes.run("reconcile", "--data", str(self.data), "--json", *words, check=False)
        assert ended.stdout, ended.stderr
        return ended.returncode, json.loads(ended.stdout)


@contextmanager
def playing(folder: Path, *mock: str) -> Iterator[Scene]:
    """Make the lab and its upstream (with the options of `mock`); the gateway is not started."""
    with ExitStack() as stack:
        data = str(folder / "data")
        made = processes.answer("workspace", "create", "--name", "lab", "--org-prefix", "lab", "--data", data)
        words = ("mock-upstream", "--account", str(folder / "account.jsonl"), *mock)
        upstream = stack.enter_context(processes.server(folder / "mock.log", *words))
        yield Scene(folder, made["api_key"], made["webhook_secret"], upstream.announced["base_url"], stack)


def authorized(key: str) -> dict[str, str]:
    return {"Authorization": f"Api-Key {key}"}


def asking(*, stream: bool) -> dict[str, Any]:
    return {"model": SLUG, "messages": [{"role": "user", "content": "How are you?"}], "stream": stream}


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
        return port


def until(condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """Wait for something another process does; return its value."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s} s"
        time.sleep(0.02)  # another process says nothing when it is ready; the loop is bounded
    return value
