"""Over Kafka a trace goes on in the records' header, and in the delivery's row: four processes tell of one request."""

from collections.abc import Iterator

import pytest

from runtime.kafka.reader import LogReader
from runtime.kafka.writer import Kafka
from schemas.topics import USAGE_EVENTS
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.conftest import eventually
from tests.e2e.test_traces import BELOW, ROOT, call, given
from tests.support import cluster as clusters
from tests.support import collector as collectors
from tests.support import databases, services
from tests.support.collector import Collector

pytestmark = pytest.mark.slow
COUNTS = {"control": 1, "proxy": 1, "metering": 1, "webhooks": 1}


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collectors.running() as there:
        yield there


async def test_four_processes_tell_of_one_request(
    tmp_path_factory: pytest.TempPathFactory,
    collector: Collector,
    kafka_bootstrap: str,
    _topics_swept: None,
    postgres_server: str,
) -> None:
    folder = tmp_path_factory.mktemp("traces")
    kafka = Kafka(kafka_bootstrap, f"{services.PREFIX}traces.")
    with (
        databases.fresh(postgres_server, services.PREFIX) as url,
        clusters.running(folder, kafka, url, COUNTS) as cluster,
        labs.on(cluster, folder) as lab,
    ):
        _, key = lab.customer("traced")
        trace_id, span_id, header = given()
        proxy = cluster.proxies[0]
        answer = eventually(lambda: got if (got := call(proxy, key, SLUG, traceparent=header)).is_success else None)
        eventually(lambda: set(collector.of(trace_id)) == {ROOT, *BELOW})
        found = collector.of(trace_id)
        assert found[ROOT].parent_id == span_id
        assert {found[name].parent_id for name in BELOW} == {found[ROOT].span_id}
        assert {name: one.service.removeprefix("tollgate-") for name, one in found.items()} == {
            ROOT: "proxy",
            "upstream": "proxy",
            "usage event": "proxy",
            "ledger": "metering",
            "webhook intake": "webhooks",
            "webhook attempt": "webhooks",
        }
        assert found[ROOT].attributes["tollgate.request_id"] == answer.headers["x-request-id"]
        async with LogReader(kafka, USAGE_EVENTS) as reader:
            told = [record async for some in reader.until(await reader.bounds()) for record in some]
        [record] = told
        assert dict(record.headers)["traceparent"].decode() == f"00-{trace_id}-{found[ROOT].span_id}-01"
        assert not any(key.partition(".")[0].encode() in body for body in collector.raw)
