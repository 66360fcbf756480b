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
from proxy.limits.days import DayCounters
from proxy.spool import writer as spool_writer
from proxy.topic.publisher import SpoolPublisher
from runtime import ids
from runtime.kafka import feed, topics
from runtime.kafka.writer import Kafka, Writer, partition_of
from runtime.settings import Settings, SpoolSync
from schemas.topics import USAGE_EVENTS
from schemas.usage import Outcome, Tokens, UsageDraft, UsageSource

GROUPS = 50
EVENTS, PARTITIONS, ROUNDS = 100_000, 12, 3
WITHIN_S = 120.0


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
        counters.use_lanes(range(lanes), lambda root: partition_of(root.encode(), lanes))
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
    groups = [ids.mint() for _ in range(GROUPS)]
    for first in range(0, events, 1000):
        await asyncio.gather(
            *[sink.put(_draft(groups[number % GROUPS], now)) for number in range(first, min(events, first + 1000))]
        )


def _draft(group: str, now: datetime) -> UsageDraft:
    return UsageDraft(
        idempotency_key=ids.mint(),
        request_id=ids.request_id(),
        timestamp=now,
        workspace_id="01JNZ0000000000000000000WS",
        group_id=group,
        charged_groups=(group,),
        external_entity_id="customer-1",
        api_key_prefix="sky_abcdefghijkl",
        model_slug="lab/model",
        request_metadata={"user": "u-1"},
        tokens=Tokens(input_tokens=1200, output_tokens=300),
        usage_source=UsageSource.PROVIDER,
        outcome=Outcome.COMPLETE,
        stream=True,
        latency_ms=2400,
        first_byte_ms=180,
    )
