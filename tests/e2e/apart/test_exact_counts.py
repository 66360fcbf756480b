"""Calls on separate processes, while each kind of process is killed and Kafka goes away: nothing is lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from infra.local.kafka import Broker
from runtime.kafka.writer import Kafka
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import Crowd
from tests.support import cluster as clusters

WITHIN_S = 600.0


async def _when(crowd: Crowd, done: float, act: Callable[[], Awaitable[None]]) -> None:
    """Do something once so many of the calls are done."""
    while crowd.done < done:  # noqa: ASYNC110 (bounded by the test)
        await asyncio.sleep(0.02)  # the crowd tells nobody; it has a bound of its own
    await act()


@pytest.mark.slow
@pytest.mark.timeout(WITHIN_S + 120)
@pytest.mark.parametrize(
    ("calls", "outage_s"), [(500, 3.0), pytest.param(20_000, 20.0, marks=pytest.mark.long)], ids=str
)
async def test_nothing_is_lost_and_nothing_is_counted_twice(
    tmp_path: Path, kafka_broker: Broker, postgres_url: str, calls: int, outage_s: float
) -> None:
    with (
        clusters.running(tmp_path, Kafka(kafka_broker.bootstrap), postgres_url, webhook_linger_ms="200") as cluster,
        labs.on(cluster, tmp_path) as lab,
    ):
        keys = lab.trees(10)
        crowd = Crowd(lambda: cluster.proxies, keys, calls)

        def replaced(name: str) -> Callable[[], Awaitable[None]]:
            return lambda: asyncio.to_thread(cluster.replace, name)

        async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(crowd.run())
            tasks.create_task(_when(crowd, 0.1 * calls, replaced("metering-1")))
            tasks.create_task(_when(crowd, 0.25 * calls, replaced("webhooks-1")))
            tasks.create_task(_when(crowd, 0.4 * calls, replaced("proxy-1")))
            tasks.create_task(_when(crowd, 0.6 * calls, lambda: asyncio.to_thread(_outage, kafka_broker, outage_s)))
        await asyncio.to_thread(lab.published)
        code, report = await asyncio.to_thread(lab.reconcile)
        assert (code, report["agrees"], report["gaps"]) == (0, True, []), report
        upstream = report["upstream"]
        served = upstream["agreeing"] + upstream["apart"]["count"]
        assert served >= calls == crowd.done
        (day, *others) = report["days"]
        assert sum(one["ledger"]["requests"] for one in (day, *others)) == served
        brought = lab.received()
        assert len(brought) == served
        assert all(len(deliveries) == 1 for deliveries in brought.values()), "an event came in two deliveries"
        assert set(crowd.seen.statuses) == {200}, crowd.seen.statuses


def _outage(broker: Broker, length_s: float) -> None:
    broker.process.kill()
    time.sleep(length_s)  # the length of the outage is what is tested
    broker.start()
