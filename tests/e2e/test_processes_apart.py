"""The product as separate processes: all get ready, and any of them may be killed and replaced."""

from pathlib import Path

import pytest

from runtime.kafka.writer import Kafka
from tests.faults.scene import until
from tests.support import cluster

pytestmark = pytest.mark.timeout(600)


def test_every_process_gets_ready_and_so_does_its_replacement(kafka: Kafka, postgres_url: str, tmp_path: Path) -> None:
    with cluster.running(tmp_path, kafka, postgres_url) as running:
        until(lambda: not running.unready(), "everything ready", 120)
        for name in ("proxy-1", "metering-1", "webhooks-1", "control-1"):
            running.replace(name)
        until(lambda: not running.unready(), "everything ready again", 120)
        codes = {name: running.stop(name) for name in running.parts}
    assert set(codes.values()) == {0}, codes
