"""A lab on a cluster: its groups in both modes, its keys, its upstream and its receiver."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.apart.crowd import SLUG
from tests.e2e.conftest import eventually
from tests.support import processes
from tests.support.cluster import Cluster

RECONCILE_S = 150
"""It waits 60 s for metering and intake to pass the cut."""

_MODES = ("INDEPENDENT", "CASCADING")


@dataclass
class Lab:
    """What a test holds of it."""

    folder: Path
    cluster: Cluster
    management_key: str

    @property
    def account(self) -> Path:
        """The upstream's own."""
        return self.folder / "account.jsonl"

    def api(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Call the management API; the answer must be a success."""
        headers = {"Authorization": f"Api-Key {self.management_key}"}
        url = f"{self.cluster.control}/v1/gateway{path}"
        answer = httpx.request(method, url, headers=headers, json=body, timeout=20)
        assert answer.status_code == 200, answer.text
        decoded: dict[str, Any] = answer.json()
        return decoded

    def customer(
        self, name: str, *, mode: str = "INDEPENDENT", parent: str | None = None, **limits: Any
    ) -> tuple[str, str]:
        """Make a group that may call SLUG, and a key of it: (group id, key)."""
        hierarchy = {"parent_group_id": parent} if parent else {"limit_enforcement": mode}
        body = {
            "metadata": {"external_entity_id": name},
            "models": [{"slug": SLUG, **limits}],
            "hierarchy": hierarchy,
        }
        group = self.api("POST", "/groups", body)
        return group["id"], self.api("POST", f"/groups/{group['id']}/api_keys", {})["api_key"]

    def trees(self, count: int) -> list[str]:
        """Make `count` trees of five groups, each mode in turn; return a key of each group."""
        keys = []
        for number in range(count):
            mode = _MODES[number % 2]
            root, key = self.customer(f"tree {number}", mode=mode)
            left, left_key = self.customer(f"tree {number} left", parent=root)
            _, right_key = self.customer(f"tree {number} right", parent=root)
            below, below_key = self.customer(f"tree {number} below", parent=left)
            _, deepest_key = self.customer(f"tree {number} deepest", parent=below)
            keys += [key, left_key, right_key, below_key, deepest_key]
        return keys

    def received(self) -> dict[str, set[str]]:
        """Return each event's key with the ids of the deliveries that brought it."""
        brought: dict[str, set[str]] = {}
        for line in (self.folder / "received.jsonl").read_text(encoding="utf-8").splitlines():
            receipt = json.loads(line)
            assert receipt["verified"], receipt["problem"]
            headers = {name.lower(): value for name, value in receipt["headers"].items()}
            for event in json.loads(receipt["body"])["data"]["events"]:
                brought.setdefault(event["idempotencyKey"], set()).add(headers["webhook-id"])
        return brought

    def published(self) -> None:
        """Return when no proxy has anything left to publish; what has not come to Kafka is left to the next run."""
        urls = [f"{self._ops(name)}/spool" for name in self.cluster.servers if name.startswith("proxy")]
        eventually(lambda: not any(one["requests"] for url in urls for one in httpx.get(url).json()), within_s=60)

    def reconcile(self) -> tuple[int, dict[str, Any]]:
        """Run `tollgate reconcile` over everything; return its exit code and report."""
        proxies = [
            word for name in self.cluster.servers if name.startswith("proxy") for word in ("--proxy", self._ops(name))
        ]
        words = ("reconcile", *proxies, "--upstream", str(self.account), "--json")
        ended = processes.run(*words, check=False, settings=self.cluster.settings, within_s=RECONCILE_S)
        assert ended.stdout, ended.stderr
        return ended.returncode, json.loads(ended.stdout)

    def _ops(self, name: str) -> str:
        return self.cluster.ops_url(name)


@contextmanager
def on(cluster: Cluster, folder: Path) -> Iterator[Lab]:
    """Onboard a lab with an endpoint, an upstream that keeps its account, and a receiver."""
    made = cluster.command("workspace", "create", "--name", "lab", "--org-prefix", "lab")
    listen = ("webhook", "listen", "--secret", made["webhook_secret"], "--out", str(folder / "received.jsonl"))
    mock = ("mock-upstream", "--tokens", "8", "--account", str(folder / "account.jsonl"))
    with (
        processes.server(folder / "listen.log", *listen) as receiver,
        processes.server(folder / "mock.log", *mock) as upstream,
    ):
        cluster.command("workspace", "set-webhook", "--workspace", "lab", "--url", receiver.announced["url"])
        lab = Lab(folder, cluster, made["api_key"])
        target = {"provider": "OPENAI_COMPATIBLE", "base_url": upstream.announced["base_url"], "target_model": "mock"}
        lab.api("POST", "/endpoints", {"slug": SLUG, "targets": [target]})
        yield lab
