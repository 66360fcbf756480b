"""The whole product over Kafka with TLS and SASL, and behind PgBouncer in transaction mode, which is restarted."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from infra.local.pgbouncer import Pooler
from runtime.kafka.security import SaslMechanism
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.conftest import eventually
from tests.support import cluster as clusters
from tests.support import secured
from tests.support.secured import Secured

COUNTS = {"control": 1, "proxy": 2, "metering": 1, "webhooks": 1}
CALLS = 200
ASKING = {"model": SLUG, "messages": [{"role": "user", "content": "How are you?"}]}


def _called(proxy: str, key: str) -> int:
    headers = {"Authorization": f"Api-Key {key}"}
    return httpx.post(f"{proxy}/v1/chat/completions", headers=headers, json=ASKING, timeout=60).status_code


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_call_is_counted_once(secured_kafka: Secured, pooler: Pooler, postgres_url: str, tmp_path: Path) -> None:
    kafka = secured_kafka.sasl(secured.by_password(SaslMechanism.SCRAM_SHA_512), "whole.")
    security: dict[str, Any] = {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_tls_ca_file": str(secured_kafka.files.authority),
        "kafka_sasl_mechanism": "SCRAM-SHA-512",
        "kafka_sasl_username": secured.USER,
        "kafka_sasl_password": secured.PASSWORD,
        "database_direct_url": postgres_url,
    }
    pooled_url = pooler.url(urlsplit(postgres_url).path)
    with (
        clusters.running(tmp_path, kafka, pooled_url, COUNTS, **security) as cluster,
        labs.on(cluster, tmp_path) as lab,
    ):
        _, key = lab.customer("alone")
        for proxy in cluster.proxies:
            eventually(lambda proxy=proxy: _called(proxy, key) == 200)  # type: ignore[misc]
        with ThreadPoolExecutor(8) as threads:
            proxies = [cluster.proxies[number % 2] for number in range(CALLS)]
            half = CALLS // 2
            statuses = list(threads.map(_called, proxies[:half], [key] * half))
            pooler.stop()
            statuses += threads.map(_called, proxies[half:], [key] * half)  # proxies need no database
            pooler.start()
        assert statuses == [200] * CALLS
        code, report = lab.reconcile()
        assert code == 0, report
        eventually(lambda: len(lab.received()) >= CALLS + 2)
        assert len(lab.received()) == CALLS + 2
