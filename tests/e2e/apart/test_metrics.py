"""`/metrics` of every role: the names that the documentation lists, and how fast changes arrive."""

from pathlib import Path

import httpx
import pytest

from runtime.kafka.writer import Kafka
from tests.faults.scene import until
from tests.support import cluster, scraping
from tests.support.cluster import Cluster
from tests.support.scraping import Samples

pytestmark = pytest.mark.timeout(600)

COUNTS = {"control": 1, "proxy": 1, "metering": 1, "webhooks": 1}
CHANGES = 10
DELAY = "tollgate_config_propagation_seconds"


def shown(running: Cluster, role: str) -> Samples:
    return scraping.samples(scraping.text(running.ops_url(f"{role}-1")))


def test_every_role_shows_what_is_documented_and_changes_arrive_within_a_second(
    kafka: Kafka, postgres_url: str, tmp_path: Path
) -> None:
    with cluster.running(tmp_path, kafka, postgres_url, COUNTS) as running:
        until(lambda: not running.unready(), "everything ready", 120)
        for role in COUNTS:
            assert scraping.names(scraping.text(running.ops_url(f"{role}-1"))) == scraping.documented()[role], role
        assert httpx.get(f"{running.control}/metrics", timeout=10).status_code == 404
        assert httpx.get(f"{running.proxies[0]}/metrics", timeout=10).status_code == 404
        until(lambda: shown(running, "control")["tollgate_relay_leading", ""], "a relay", 60)
        key = running.command("workspace", "create", "--name", "lab", "--org-prefix", "lab")["api_key"]
        until(lambda: shown(running, "proxy")["tollgate_config_version", ""] >= 1, "the workspace")
        before = shown(running, "proxy")
        for number in range(CHANGES):
            secret = {"name": f"secret {number}", "value": "sesame"}
            headers = {"Authorization": f"Api-Key {key}"}
            answer = httpx.post(f"{running.control}/v1/secrets", headers=headers, json=secret, timeout=20)
            assert answer.status_code == 200, answer.text
        count = (f"{DELAY}_count", "")
        until(lambda: shown(running, "proxy")[count] >= before[count] + CHANGES, "the changes")
        after = shown(running, "proxy")
        assert after[count] == before[count] + CHANGES
        in_time = (f"{DELAY}_bucket", "1.0")
        assert after[in_time] - before[in_time] > CHANGES / 2  # the machine is shared: some may be late
        assert after["tollgate_config_silence_seconds", ""] < 10
        until(lambda: shown(running, "control")["tollgate_relay_unsent_changes", ""] == 0, "all sent")
        assert shown(running, "control")["tollgate_relay_sent_version", ""] == after["tollgate_config_version", ""]
