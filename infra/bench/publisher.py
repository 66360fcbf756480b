"""What publishing costs: CPU an event from the spool's file to Kafka's acknowledgement (the aim is 4 us)."""

import asyncio
import secrets
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import uvloop

from infra.local import kafka
from proxy.core import usage_event
from proxy.core.calls import SpoolUnavailableError
from proxy.limits.days import DayCounters
from proxy.limits.estimate import TokenCounts
from proxy.spool import writer as spool_writer
from proxy.topic.publisher import SpoolPublisher
from runtime import ids
from runtime.kafka import feed, topics
from runtime.kafka.writer import Kafka, Writer, partition_of
from runtime.settings import Settings, SpoolSync
from schemas.topics import USAGE_EVENTS
from schemas.usage import Outcome, RouteName, UsageSource

GROUPS = 50
EVENTS, PARTITIONS, ROUNDS = 100_000, 12, 3
WITHIN_S = 120.0
_ids = ids.Minter()


class Cost(NamedTuple):
    """What one event took."""

    cpu_us: float
    """Of all threads."""
    loop_cpu_us: float
    """Of the event loop's thread, which requests share."""
    events_s: float


def bench(folder: Path) -> int:
    """Measure a few times and print each: the least is the least disturbed."""
    with kafka.running(folder / "kafka") as broker:
        for _ in range(ROUNDS):
            cost = uvloop.run(measure(broker.bootstrap, EVENTS, PARTITIONS))
            on_loop = f"{cost.loop_cpu_us:.1f} on the loop"
            print(f"{cost.cpu_us:.1f} us CPU an event ({on_loop}), {cost.events_s:,.0f} events/s", flush=True)
    return 0


async def measure(bootstrap: str, events: int, partitions: int) -> Cost:
    """Spool `events` events, publish them to a new topic."""
    where = Kafka(bootstrap, f"bench-{secrets.token_hex(4)}.")
    settings = Settings(kafka_partitions=partitions, kafka_replication=1, kafka_min_insync_replicas=1)
    plans = [plan for plan in topics.plans(settings) if plan.name == USAGE_EVENTS]
    problems = await topics.ensure(where, plans, create=True)
    if problems:
        raise SystemExit(topics.told(problems))
    now = datetime.now(UTC)
    writer = Writer(where, "bench")
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
        sink, _ = spool_writer.open_folder(Path(folder), sync=SpoolSync.NORMAL, max_bytes=2**34)
        await _fill(sink, events, now)
        lanes = await writer.partitions(USAGE_EVENTS)
        counters = DayCounters(sink.instance)
        counters.use_lanes(range(lanes), lambda root, *_: partition_of(root.encode(), lanes))
        publisher = SpoolPublisher(sink, (), {}, writer, counters, partial(feed.ends, where, USAGE_EVENTS))
        began, cpu, loop_cpu = time.perf_counter(), time.process_time(), time.thread_time()
        running = asyncio.create_task(publisher.run())
        if not await publisher.drain(WITHIN_S):
            raise SystemExit(f"Kafka did not take {events} events within {WITHIN_S:g} s")
        took_s = time.perf_counter() - began
        cpu, loop_cpu = time.process_time() - cpu, time.thread_time() - loop_cpu
        running.cancel()
        await asyncio.wait({running})
        await writer.close()
        sink.close()
    return Cost(cpu / events * 1e6, loop_cpu / events * 1e6, events / took_s)


async def _fill(sink: spool_writer.Spool, events: int, now: datetime) -> None:
    routes = [_route(ids.mint()) for _ in range(GROUPS)]
    for first in range(0, events, 1000):
        for number in range(first, min(events, first + 1000)):
            sink.append(_event(routes[number % GROUPS], now), Outcome.COMPLETE, _kept)
        await sink.file.wait(first + 1, WITHIN_S)  # a turn of the loop is one write


def _route(group: str) -> bytes:
    return usage_event.of_route(
        workspace_id="01JNZ0000000000000000000WS",
        group_id=group,
        charged_groups=(group,),
        parent_groups=(),
        external_entity_id="customer-1",
        slug="lab/model",
        name=RouteName.CHAT_COMPLETIONS,
    )


def _event(route: bytes, now: datetime) -> bytes:
    """Return an event as a proxy writes it."""
    begun = usage_event.begun(
        idempotency_key=_ids.mint(now),
        request_id=_ids.uuid7(now),
        admitted_at=now,
        route=route,
        api_key_prefix="sky_abcdefghijkl",
        request_metadata={"user": "u-1"},
        stream=True,
    )
    return usage_event.ended(begun, TokenCounts(1200, 300), UsageSource.PROVIDER, Outcome.COMPLETE, (2400, 180))


def _kept(outcome: int | SpoolUnavailableError) -> None:
    if isinstance(outcome, SpoolUnavailableError):
        raise SystemExit(str(outcome))
