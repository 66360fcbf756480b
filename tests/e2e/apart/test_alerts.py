"""Debian's own Prometheus scrapes a cluster whose broker is stopped: the alert fires, and ends when it is back."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.local import process
from infra.local.kafka import Broker
from runtime.kafka.writer import Kafka
from tests.architecture import sources
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.faults.scene import until
from tests.support import cluster, services

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
COUNTS = {"control": 1, "proxy": 1, "metering": 1, "webhooks": 1}


def configured(folder: Path, targets: list[str]) -> Path:
    """Write the delivered configuration with a pace that a test can wait for; return its file."""
    delivered = sources.ROOT / "infra" / "prometheus"
    rules = yaml.safe_load((delivered / "alerts.yml").read_text(encoding="utf-8"))
    for rule in rules["groups"][0]["rules"]:
        rule.pop("for", None)
    config = yaml.safe_load((delivered / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def firing(url: str) -> set[str]:
    """Return the names of the alerts that fire."""
    answer: dict[str, Any] = httpx.get(f"{url}/api/v1/alerts", timeout=10).json()
    return {one["labels"]["alertname"] for one in answer["data"]["alerts"] if one["state"] == "firing"}


def test_a_broker_that_is_away_is_told_of_until_it_is_back(
    kafka_broker: Broker, postgres_url: str, tmp_path: Path
) -> None:
    services.installed("prometheus")
    where = Kafka(kafka_broker.bootstrap, "alerts.")
    with cluster.running(tmp_path, where, postgres_url, COUNTS) as running, labs.on(running, tmp_path) as lab:
        until(lambda: not running.unready(), "everything ready", 120)
        targets = [running.ops_url(name).removeprefix("http://") for name in running.servers]
        port = process.free_ports(1)[0]
        url = f"http://127.0.0.1:{port}"
        words = [f"--config.file={configured(tmp_path, targets)}", f"--storage.tsdb.path={tmp_path / 'tsdb'}"]
        scraping = subprocess.Popen(
            ["prometheus", *words, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
        )
        try:
            until(lambda: _is_ready(url), "Prometheus", 60)
            until(lambda: not firing(url) - {"TollgateRateWindowsApart"}, "no alert before the outage", 120)
            _, key = lab.customer("acme")
            kafka_broker.stop()
            headers = {"Authorization": f"Api-Key {key}"}
            asked = {"model": SLUG, "messages": [{"role": "user", "content": "Hello"}]}
            answer = httpx.post(f"{running.proxies[0]}/v1/chat/completions", headers=headers, json=asked, timeout=30)
            assert answer.status_code == 200, "requests go on"
            until(lambda: "TollgateKafkaAway" in firing(url), "the alert", 120)
            kafka_broker.start()
            until(lambda: "TollgateKafkaAway" not in firing(url), "its end", 120)
        finally:
            scraping.terminate()
            scraping.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
