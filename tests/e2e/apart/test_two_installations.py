"""Two whole installations on one Kafka, one database and one Redis, as docs/operate.md tells them apart."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from runtime.kafka.writer import Kafka
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.apart.lab import Lab
from tests.e2e.conftest import eventually
from tests.support import cluster as clusters

COUNTS = {"control": 1, "proxy": 1, "metering": 1, "webhooks": 1}
ASKING = {"model": SLUG, "messages": [{"role": "user", "content": "How are you?"}]}
LIMITS: dict[str, Any] = {
    "rate_limits": [{"type": "REQUEST", "unit": "MINUTE", "threshold": 100}],
    "usage_limits": [{"type": "REQUEST", "unit": "DAY", "threshold": 30}],
}


def status(lab: Lab, key: str) -> int:
    headers = {"Authorization": f"Api-Key {key}"}
    (proxy,) = lab.cluster.proxies
    return httpx.post(f"{proxy}/v1/chat/completions", headers=headers, json=ASKING, timeout=60).status_code


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_neither_sees_anything_of_the_other(kafka: Kafka, postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA second")
    places = [
        (kafka, postgres_url, "first:"),
        (Kafka(kafka.bootstrap, f"{kafka.prefix}second."), f"{postgres_url}?options=-csearch_path%3Dsecond", "second:"),
    ]
    with ExitStack() as stack:
        there: list[tuple[Lab, str]] = []
        for number, (topics, database, redis_prefix) in enumerate(places):
            folder = tmp_path / str(number)
            folder.mkdir()
            shared: dict[str, Any] = {"redis_url": redis_url, "redis_key_prefix": redis_prefix}
            cluster = stack.enter_context(clusters.running(folder, topics, database, COUNTS, **shared))
            lab = stack.enter_context(labs.on(cluster, folder))
            there.append((lab, lab.customer("acme", **LIMITS)[1]))
        for (lab, key), calls in zip(there, (20, 30), strict=True):
            eventually(lambda lab=lab, key=key: status(lab, key) == 200)  # type: ignore[misc]
            assert [status(lab, key) for _ in range(calls - 1)] == [200] * (calls - 1)
        (first, first_key), (second, second_key) = there
        assert (status(first, second_key), status(second, first_key)) == (401, 401)
        assert (status(first, first_key), status(second, second_key)) == (200, 429), "each holds its own day's limit"
        brought = []
        for lab, served in ((first, 21), (second, 30)):
            lab.published()
            code, report = lab.reconcile()
            assert (code, report["agrees"], report["gaps"]) == (0, True, []), report
            assert sum(day["ledger"]["requests"] for day in report["days"]) == served
            eventually(lambda lab=lab, served=served: len(lab.received()) == served)  # type: ignore[misc]
            brought.append(set(lab.received()))
        assert brought[0].isdisjoint(brought[1])
