"""A cluster left alone under load, with a hostile receiver, a compressed topic and a junk record: all is counted.

For two minutes, or as many as TOLLGATE_TEST_MINUTES says.
"""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import httpx
import pytest

from infra.local.kafka import Broker
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from schemas.topics import USAGE_EVENTS
from tests.e2e.apart import lab as labs
from tests.e2e.apart.crowd import SLUG
from tests.e2e.apart.lab import Lab
from tests.support import cluster as clusters
from tests.support import records
from tests.support.cluster import Cluster

MINUTES = float(os.environ.get("TOLLGATE_TEST_MINUTES", "2"))
PAUSE_S = 0.25
HOSTILE_SLUG = "hostile/model"
_ANSWERS = (
    b"HTTP/1.1 503 Away\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 -0100\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 429 Slow\r\nRetry-After: 99999999999999999999\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf",
    b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    b"",
)


@asynccontextmanager
async def hostile_receiver() -> AsyncIterator[str]:
    """Answer each request in another bad way, every third never; give its URL."""
    turns, never = itertools.count(), asyncio.Event()
    open_: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_.add(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            turn = next(turns)
            if turn % 3 == 2:
                await never.wait()
            writer.write(_ANSWERS[turn % len(_ANSWERS)])
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the dispatcher's own bound has ended it
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        server.close()
        never.set()
        await asyncio.gather(*(task for task in open_ if task is not None), return_exceptions=True)


def hostile_key(lab: Lab, url: str) -> str:
    """Onboard a second lab, whose receiver is at `url`, on the first one's upstream; return a developer's key."""
    made = lab.cluster.command("workspace", "create", "--name", "hostile", "--org-prefix", "hostile")
    lab.cluster.command("workspace", "set-webhook", "--workspace", "hostile", "--url", url)
    other = Lab(lab.folder, lab.cluster, made["api_key"])
    (endpoint,) = lab.api("GET", "/endpoints")["items"]
    other.api("POST", "/endpoints", {"slug": HOSTILE_SLUG, "targets": endpoint["targets"]})
    models = [{"slug": HOSTILE_SLUG}]
    group = other.api("POST", "/groups", {"metadata": {"external_entity_id": "customer"}, "models": models})
    key: str = other.api("POST", f"/groups/{group['id']}/api_keys", {})["api_key"]
    return key


async def call_for(seconds: float, proxies: list[str], keys: dict[str, str]) -> int:
    """Call each proxy in turn, with each slug's key; return how many answers there were. None may fail."""
    ends_at, count = time.monotonic() + seconds, 0
    turns = zip(itertools.cycle(proxies), itertools.cycle([*keys.items(), None]), strict=False)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as client:
        for proxy, one in turns:
            if time.monotonic() >= ends_at:
                return count
            slug, key = one or (SLUG, keys[SLUG])
            body = {"model": slug, "messages": [{"role": "user", "content": "How are you?"}], "stream": count % 2 == 1}
            headers = {"authorization": f"Api-Key {key}"}
            async with client.post(f"{proxy}/v1/chat/completions", headers=headers, json=body) as answer:
                await answer.read()
                assert answer.status == 200
            count += 1
            await asyncio.sleep(PAUSE_S)  # the load itself
    raise AssertionError("a cycle has ended")


def shown(cluster: Cluster, name: str) -> str:
    """Return a process's metrics."""
    return httpx.get(f"{cluster.ops_url(name)}/metrics", timeout=20).text


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 600)
async def test_a_cluster_left_alone_counts_everything(tmp_path: Path, kafka_broker: Broker, postgres_url: str) -> None:
    where = Kafka(kafka_broker.bootstrap)
    with (
        clusters.running(tmp_path, where, postgres_url) as cluster,
        labs.on(cluster, tmp_path) as lab,
    ):
        await records.compress(where, USAGE_EVENTS, "lz4")
        async with hostile_receiver() as url:
            _, key = await asyncio.to_thread(lab.customer, "customer")
            keys = {SLUG: key, HOSTILE_SLUG: await asyncio.to_thread(hostile_key, lab, url)}
            writer = Writer(where, "junk")
            await writer.write(USAGE_EVENTS, [KafkaRecord(b"junk", b'{"tokens": {"inputTokens": 1000000}}')])
            await writer.close()
            count = await call_for(MINUTES * 60, cluster.proxies, keys)
        await asyncio.to_thread(lab.published)
        code, report = await asyncio.to_thread(lab.reconcile)
        assert (code, report["agrees"], report["gaps"]) == (0, True, []), report
        assert sum(day["ledger"]["requests"] for day in report["days"]) == count
        assert cluster.unready() == {}
        listed = await asyncio.to_thread(lab.cluster.command, "unreadable", "list")
        assert listed["reason"] == "idempotencyKey: Field required", "one record, and the junk it is"
        own = {item["status"] for item in lab.api("GET", "/deliveries?limit=100")["items"]}
        assert own == {"delivered"}
        assert not [name for name in cluster.servers if "tollgate_loops_still 0.0" not in shown(cluster, name)]
