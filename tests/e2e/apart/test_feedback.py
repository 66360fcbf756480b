"""What one proxy admits counts at the other, and no proxy needs the database (contract 3.1, 7)."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from runtime.kafka.writer import Kafka
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.apart.lab import Lab
from tests.e2e.conftest import eventually as eventually_so
from tests.support import cluster as clusters
from tests.support import databases, processes, services

COUNTS = {"control": 1, "proxy": 2, "metering": 1, "webhooks": 1}
ASKING = {"model": SLUG, "messages": [{"role": "user", "content": "How are you?"}]}
NOWHERE = "postgresql://nobody@127.0.0.1:1/none"
WITHIN_S = 90.0


@pytest.fixture(scope="module")
def lab(
    tmp_path_factory: pytest.TempPathFactory, kafka_bootstrap: str, _topics_swept: None, postgres_server: str
) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("feedback")
    kafka = Kafka(kafka_bootstrap, f"{services.PREFIX}feedback.")
    with (
        databases.fresh(postgres_server, services.PREFIX) as url,
        clusters.running(folder, kafka, url, COUNTS) as cluster,
        labs.on(cluster, folder) as there,
    ):
        yield there


def call(proxy: str, key: str) -> httpx.Response:
    headers = {"Authorization": f"Api-Key {key}"}
    return httpx.post(f"{proxy}/v1/chat/completions", headers=headers, json=ASKING, timeout=30)


def eventually(answer: Callable[[], httpx.Response], status: int) -> httpx.Response:
    """Ask until the status is there: changes and decisions take a moment."""
    deadline = time.monotonic() + WITHIN_S
    while (got := answer()).status_code != status:
        assert time.monotonic() < deadline, got.text
        time.sleep(0.02)  # another process says nothing when it has heard; the loop is bounded
    return got


def day(type_: str, threshold: int) -> dict[str, Any]:
    return {"usage_limits": [{"type": type_, "unit": "DAY", "threshold": threshold}]}


def drive(proxy: str, key: str) -> int:
    """Call until the day is used up; return how many calls were admitted."""
    admitted = 0
    while (answer := call(proxy, key)).status_code == 200:
        admitted += 1
    assert answer.json()["error"]["code"] == "insufficient_quota"
    return admitted


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_one_proxy_admits_counts_at_the_other_and_no_proxy_needs_the_database(lab: Lab, tmp_path: Path) -> None:
    """In this order: whoever reconciles has to ask every proxy that served, and the last one is gone."""
    a_day_used_up_at_one_proxy_is_used_up_at_the_other(lab)
    a_month_and_a_budget_used_up_at_one_proxy_are_used_up_at_the_other(lab)
    a_proxy_starts_and_serves_without_the_database(lab, tmp_path)
    a_proxy_that_restarts_while_metering_and_the_database_are_away_holds_its_limits(lab)


def a_day_used_up_at_one_proxy_is_used_up_at_the_other(lab: Lab) -> None:
    first, second = lab.cluster.proxies
    group, key = lab.customer("alone", **day("REQUEST", 20))
    for proxy in (first, second):
        eventually(lambda proxy=proxy: call(proxy, key), 200)  # type: ignore[misc]
    assert 18 <= drive(first, key) <= 19  # the other proxy's one call may not be counted yet
    eventually(lambda: call(second, key), 429)  # perhaps by what the first one has in flight, which asks for a second
    eventually_so(lambda: call(second, key).json()["error"]["code"] == "insufficient_quota", within_s=WITHIN_S)
    assert call(second, key).headers["x-should-retry"] == "false"

    root, root_key = lab.customer("family", mode="CASCADING", **day("TOKEN", 200))
    _, child_key = lab.customer("child", parent=root)
    eventually(lambda: call(first, child_key), 200)
    drive(first, child_key)
    eventually(lambda: call(second, root_key), 429)

    lab.api("PATCH", f"/groups/{group}", {"models": [{"slug": SLUG, **day("REQUEST", 1000)}]})
    for proxy in (first, second):
        eventually(lambda proxy=proxy: call(proxy, key), 200)  # type: ignore[misc]
    assert lab.reconcile()[0] == 0


def a_month_and_a_budget_used_up_at_one_proxy_are_used_up_at_the_other(lab: Lab) -> None:
    first, second = lab.cluster.proxies
    rates = {"input": "0", "cached_input": "0", "output": "0", "request": "0.01", "currency": "EUR"}
    lab.api("PUT", "/prices", [{"slug": SLUG, "external_entity_id": "budget", "from": "2026-01-01", **rates}])
    for name, kind in (("month", "REQUEST"), ("budget", "COST")):
        group, key = lab.customer(name)
        for proxy in (first, second):
            eventually(lambda proxy=proxy, key=key: call(proxy, key), 200)  # type: ignore[misc]
        limit = {"type": kind, "unit": "MONTH", "threshold": 5}
        lab.api("PATCH", f"/groups/{group}", {"models": [{"slug": SLUG, "usage_limits": [limit]}]})
        drive(first, key)
        refused = eventually(lambda key=key: call(second, key), 429)  # type: ignore[misc]
        assert f"5 {kind} per MONTH" in refused.json()["error"]["message"]

        def used(group: str = group) -> int:
            (shown,) = lab.api("GET", f"/groups/{group}/usage")["usage"][SLUG]
            return int(shown["current_usage"])

        eventually_so(lambda used=used: used() >= 5, within_s=WITHIN_S)  # type: ignore[misc]


def a_proxy_starts_and_serves_without_the_database(lab: Lab, tmp_path: Path) -> None:
    _, key = lab.customer("early", **day("REQUEST", 5))
    first = lab.cluster.proxies[0]
    eventually(lambda: call(first, key), 200)
    assert drive(first, key) == 4
    settings = lab.cluster.settings | {"database_url": NOWHERE}
    words = ("serve", "proxy", "--data", str(tmp_path / "proxy-3"), "--port", "0", "--ops-port", "0")
    with processes.server(tmp_path / "proxy-3.log", *words, **settings) as third:
        assert call(third.announced["url"], key).status_code == 429  # it has read configuration and decisions
        _, late_key = lab.customer("late")
        eventually(lambda: call(third.announced["url"], late_key), 200)


def a_proxy_that_restarts_while_metering_and_the_database_are_away_holds_its_limits(lab: Lab) -> None:
    _, key = lab.customer("held", **day("REQUEST", 5))
    eventually(lambda: call(lab.cluster.proxies[0], key), 200)
    assert [call(lab.cluster.proxies[0], key).status_code for _ in range(2)] == [200, 200]
    lab.cluster.kill("metering-1")
    assert call(lab.cluster.proxies[0], key).status_code == 200, "counted by nobody: in the proxy's spool alone"
    lab.cluster.kill("proxy-1")
    kept = lab.cluster.settings
    lab.cluster.settings = kept | {"database_url": NOWHERE}
    lab.cluster.start("proxy-1")
    lab.cluster.settings = kept
    assert httpx.get(f"{lab.cluster.ops_url('proxy-1')}/readyz").status_code == 200
    statuses = [call(lab.cluster.proxies[0], key).status_code for _ in range(3)]
    # a row whose acknowledgement was lost is sent again, and counted twice until metering has passed it
    assert statuses in ([200, 429, 429], [429, 429, 429])
    lab.cluster.start("metering-1")


def test_a_refused_request_is_found_at_control_whichever_proxy_refused_it(lab: Lab) -> None:
    headers = {"Authorization": f"Api-Key {lab.management_key}"}
    _, key = lab.customer("sought", **day("REQUEST", 0))
    for proxy in lab.cluster.proxies:
        refused = eventually(lambda proxy=proxy: call(proxy, key), 429)  # type: ignore[misc]
        url = f"{lab.cluster.control}/v1/gateway/requests/{refused.headers['x-request-id']}"
        found = eventually(lambda url=url: httpx.get(url, headers=headers), 200).json()  # type: ignore[misc]
        assert (found["outcome"], found["reason"], found["event"]) == ("refused", "insufficient_quota", None)
