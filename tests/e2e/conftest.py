"""One lab on a real gateway, a real mock upstream and a real receiver, each a process."""

import json
import sqlite3
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support import processes

SLUG = "lab/model"
TARGET_MODEL = "upstreams-own-name"


@dataclass
class Lab:
    """What the tests hold of it."""

    folder: Path
    url: str
    management_key: str
    webhook_secret: str
    upstream: str
    clients: list[openai.OpenAI] = field(default_factory=list)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def api(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Call the management API; the answer must be a success."""
        headers = {"Authorization": f"Api-Key {self.management_key}"}
        answer = httpx.request(method, f"{self.url}/v1/gateway{path}", headers=headers, json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        decoded: dict[str, Any] = answer.json()
        return decoded

    def customer(self, name: str, *, parent: str | None = None, **limits: Any) -> tuple[str, str]:
        """Make a group that may call SLUG, and a key of it: (group id, key)."""
        body: dict[str, Any] = {
            "metadata": {"external_entity_id": name},
            "models": [{"slug": SLUG, **limits}],
            "hierarchy": {"parent_group_id": parent} if parent else {},
        }
        group = self.api("POST", "/groups", body)
        key = self.api("POST", f"/groups/{group['id']}/api_keys", {})
        return group["id"], key["api_key"]

    def sdk(self, key: str) -> openai.OpenAI:
        """Return the developer's client; the fixture closes it."""
        headers = {"Authorization": f"Api-Key {key}"}
        client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="unused", default_headers=headers, max_retries=0)
        self.clients.append(client)
        return client

    def ledger(self, external_id: str) -> list[sqlite3.Row]:
        """Return a customer's rows of the ledger."""
        with sqlite3.connect(f"file:{self.data / 'tollgate.db'}?mode=ro", uri=True) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute(
                "SELECT * FROM usage_event WHERE external_entity_id = ? ORDER BY timestamp", (external_id,)
            ).fetchall()
        connection.close()
        return found

    def recorded_bodies(self) -> list[bytes]:
        """Return the bodies that the upstream received, exactly."""
        lines = (self.folder / "record.jsonl").read_text(encoding="utf-8").splitlines()
        return [b64decode(json.loads(line)["body"]) for line in lines]

    def deliveries(self) -> list[dict[str, Any]]:
        """Return what the receiver got."""
        received = self.folder / "received.jsonl"
        return (
            [json.loads(line) for line in received.read_text(encoding="utf-8").splitlines()]
            if received.exists()
            else []
        )

    def delivered(self, external_id: str) -> list[dict[str, Any]]:
        """Return a customer's events among the deliveries, in order of arrival."""
        bodies = [json.loads(delivery["body"]) for delivery in self.deliveries()]
        events = [event for body in bodies for event in body["data"]["events"]]
        return [event for event in events if event["externalEntityId"] == external_id]


def eventually(condition: Callable[[], Any], within_s: float = 90) -> Any:
    """Wait for a condition of another process; return its value."""
    deadline = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)  # another process says nothing when it is ready; the loop is bounded
    return value


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    data = str(folder / "data")
    made = processes.answer("workspace", "create", "--name", "lab", "--org-prefix", "lab", "--data", data)
    secret = made["webhook_secret"]
    listen = ("webhook", "listen", "--secret", secret, "--out", str(folder / "received.jsonl"))
    mock = ("mock-upstream", "--tokens", "8", "--account", str(folder / "account.jsonl"))
    with (
        processes.server(folder / "listen.log", *listen) as receiver,
        processes.server(folder / "mock.log", *mock, "--record", str(folder / "record.jsonl")) as upstream,
    ):
        url = receiver.announced["url"]
        processes.answer("workspace", "set-webhook", "--workspace", "lab", "--url", url, "--data", data)
        serve = ("serve", "--data", data, "--port", "0", "--ops-port", "0")
        with processes.server(folder / "serve.log", *serve, webhook_linger_ms="50") as gateway:
            base_url = upstream.announced["base_url"]
            there = Lab(folder, gateway.announced["url"], made["api_key"], secret, base_url)
            target = {"provider": "OPENAI_COMPATIBLE", "base_url": base_url, "target_model": TARGET_MODEL}
            there.api("POST", "/endpoints", {"slug": SLUG, "targets": [target]})
            yield there
            for client in there.clients:
                client.close()
        assert gateway.process.returncode == 0, "SIGTERM must end it cleanly"
