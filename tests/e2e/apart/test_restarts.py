"""The product over Kafka, PostgreSQL and Redis by TLS alone, each of them restarted in turn under load."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local import process
from infra.local import services as local_services
from infra.local.services import Services
from runtime.kafka.writer import Kafka
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.conftest import eventually
from tests.support import cluster as clusters
from tests.support import services
from tests.support.cluster import Cluster

COUNTS = {"control": 1, "proxy": 2, "metering": 1, "webhooks": 1}
ASKING = {"model": SLUG, "messages": [{"role": "user", "content": "How are you?"}]}
RATE: dict[str, Any] = {"rate_limits": [{"type": "REQUEST", "unit": "SECOND", "threshold": 100_000}]}
"""Never reached; it has each call ask Redis."""


@pytest.fixture
def secured(kafka_installed: None, postgres_installed: None, redis_installed: None) -> Iterator[Services]:
    with services.folder("secured") as folder:
        ports = dict(zip(("kafka", "postgres", "redis"), process.free_ports(3), strict=True))
        made = local_services.secured(folder, ports.__getitem__, durable=False)
        with process.running(made.kafka), process.running(made.postgres), process.running(made.redis):
            yield made


class Callers:
    """Call the proxies in turn, several at a time, and keep what they answer."""

    def __init__(self, cluster: Cluster, key: str, client: httpx.Client, threads: ThreadPoolExecutor) -> None:
        self._urls = cycle(cluster.proxies)
        self._client = client
        self._key = key
        self._threads = threads
        self._made: list[Future[int]] = []

    def call(self, times: int) -> None:
        self._made += [self._threads.submit(self.status, url) for url in islice(self._urls, times)]

    def status(self, url: str) -> int:
        headers = {"Authorization": f"Api-Key {self._key}"}
        return self._client.post(f"{url}/v1/chat/completions", headers=headers, json=ASKING).status_code

    def statuses(self) -> list[int]:
        """Wait for all; return what each was answered."""
        return [one.result() for one in self._made]


def windows_are_shared(cluster: Cluster) -> bool:
    urls = [cluster.ops_url(name) for name in cluster.servers if name.startswith("proxy")]
    return all("tollgate_rate_windows_shared 1.0" in httpx.get(f"{url}/metrics", timeout=10).text for url in urls)


@pytest.mark.slow
@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("calls", [210, pytest.param(20_000, marks=pytest.mark.long)])
def test_no_call_fails_and_each_counts_once(secured: Services, tmp_path: Path, calls: int) -> None:
    settings: dict[str, Any] = dict(secured.settings)
    where, url = Kafka(settings["kafka_bootstrap"]), settings.pop("database_url")
    with (
        clusters.running(tmp_path, where, url, COUNTS, **settings) as cluster,
        labs.on(cluster, tmp_path) as lab,
        httpx.Client(timeout=120) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        _, key = lab.customer("acme", **RATE)
        callers = Callers(cluster, key, client, threads)
        for url in cluster.proxies:
            eventually(lambda url=url: callers.status(url) == 200)  # type: ignore[misc]
        eventually(partial(windows_are_shared, cluster))
        for service in (secured.kafka, secured.postgres, secured.redis):
            callers.call(calls // 6)
            service.stop()
            callers.call(calls // 6)
            service.start()
            statuses = callers.statuses()
        assert set(statuses) == {200}
        served = len(statuses) + 2
        eventually(partial(windows_are_shared, cluster))
        lab.published()
        code, report = lab.reconcile()
        assert (code, report["agrees"], report["gaps"]) == (0, True, []), report
        assert sum(day["ledger"]["requests"] for day in report["days"]) == served
        eventually(lambda: len(lab.received()) == served)
