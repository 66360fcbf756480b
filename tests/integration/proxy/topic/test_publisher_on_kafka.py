"""The publisher on a real broker: outages and kill -9 lose nothing and reorder nothing (contract 7, counting 3)."""

import asyncio
import itertools
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.local.kafka import Broker
from proxy.spool import writer as spool_writer
from proxy.topic import publisher
from proxy.topic import report as spool_report
from runtime.kafka.writer import Kafka, Writer
from schemas.topics import USAGE_EVENTS
from schemas.usage import UsageEvent
from tests.architecture import sources
from tests.integration.proxy import fake_topic as topics
from tests.integration.proxy.fake_topic import publishing, running, spooled, until
from tests.support import records
from tests.support.events import as_contract
from tests.support.records import firsts


@pytest.fixture
async def writer(kafka: Kafka) -> AsyncIterator[Writer]:
    await records.make_topics(kafka, only=[USAGE_EVENTS])
    made = Writer(kafka, "test")
    yield made
    await made.close()


async def published(where: Kafka) -> dict[int, list[UsageEvent]]:
    found = await records.read(where, USAGE_EVENTS)
    return {
        partition: [UsageEvent.model_validate_json(record.value) for record in there]
        for partition, there in found.items()
    }


def check(found: dict[int, list[UsageEvent]], last_sequence: int) -> None:
    """Every event is there, and within each partition in order, repeats aside."""
    firsts_of = {partition: firsts(event.producer.sequence for event in events) for partition, events in found.items()}
    assert sorted(itertools.chain(*firsts_of.values())) == list(range(1, last_sequence + 1))
    for sequences in firsts_of.values():
        assert sequences == sorted(sequences)


async def test_what_is_spooled_is_in_the_topic_once(tmp_path: Path, kafka: Kafka, writer: Writer) -> None:
    sink, _ = topics.opened(tmp_path)
    made = publishing(sink, writer)
    async with running(made, sink):
        for first in range(0, 3000, 100):
            await spooled(sink, range(first, first + 100))
        assert await made.drain(30)
    found = await published(kafka)
    check(found, 3000)
    assert sum(map(len, found.values())) == 3000
    by_sequence = {event.producer.sequence: event for events in found.values() for event in events}
    assert list(map(as_contract, sink.file.remaining())) == [by_sequence[sequence] for sequence in range(1, 3001)]
    sink.close()


async def test_a_busy_trees_events_lie_over_its_lanes_also_after_a_restart(
    tmp_path: Path, kafka: Kafka, writer: Writer
) -> None:
    one_tree = [12 * number for number in range(100)]
    home, partitions = topics.partition_of(0), await writer.partitions(USAGE_EVENTS)
    sink, _ = topics.opened(tmp_path)
    made = publishing(sink, writer)
    async with running(made, sink):
        await spooled(sink, one_tree)
        sink.file.spreads.spread(topics.GROUPS[0], 2, begin=101, oldest=1)
        await spooled(sink, one_tree)
        assert await made.drain(30)
    sink.close()
    again, _ = topics.opened(tmp_path)
    made = publishing(again, writer)
    async with running(made, again):
        await spooled(again, one_tree)
        assert await made.drain(30)
    found = {event.producer.sequence: lane for lane, events in (await published(kafka)).items() for event in events}
    assert found == {
        sequence: home if sequence <= 100 else (home + sequence % 2) % partitions for sequence in range(1, 301)
    }
    again.close()


async def test_an_outage_delays_and_loses_nothing(
    tmp_path: Path, kafka_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_WRITE_WITHIN_S", 1.0)
    where = Kafka(kafka_broker.bootstrap, "outage.")
    await records.make_topics(where, only=[USAGE_EVENTS])
    writer = Writer(where, "test")
    sink, _ = topics.opened(tmp_path)
    made = publishing(sink, writer)
    async with running(made, sink):
        await spooled(sink, range(1000))
        await until(lambda: made.published > 0)
        kafka_broker.process.kill()
        await spooled(sink, range(1000, 2000))
        await until(lambda: made.is_away)
        marks = {mark.instance: mark.acknowledged_through for mark in made.marks()}
        (row,) = await spool_report.unpublished(made, {})
        assert row.requests == 2000 - marks[sink.instance]
        await asyncio.to_thread(kafka_broker.start)
        await spooled(sink, range(2000, 3000))
        assert await made.drain(60)
        assert not made.is_away
    check(await published(where), 3000)
    sink.close()
    await writer.close()


@pytest.mark.slow
async def test_kill_9_in_the_middle_of_publishing_loses_nothing(tmp_path: Path, kafka: Kafka, writer: Writer) -> None:
    reported = 0
    for _ in range(3):
        reported = max(reported, await kill_after(tmp_path, kafka, random.randint(5, 60)))
    sink, older = topics.opened(tmp_path)
    assert not older
    made = publishing(sink, writer)
    async with running(made):
        assert await made.drain(30)
    assert sink.file.end - 1 >= reported > 0
    check(await published(kafka), sink.file.end - 1)
    sink.close()


async def kill_after(folder: Path, kafka: Kafka, lines: int) -> int:
    """Let a process spool and publish, kill it; return the last sequence that it reported."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.proxy.publishing", str(folder), kafka.bootstrap, kafka.prefix),
        cwd=sources.ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    last = b"0"
    async with asyncio.timeout(240):
        for _ in range(lines):
            last = await process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        whole = [line for line in (await process.stdout.read()).splitlines(keepends=True) if line.endswith(b"\n")]
        await process.wait()
    return int((whole or [last])[-1])


async def test_a_power_cut_s_file_is_published_beside_the_new_one(
    tmp_path: Path, kafka: Kafka, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_writer, "boot_id", lambda: "before")
    old, _ = topics.opened(tmp_path)
    await spooled(old, range(500))
    old.close()
    monkeypatch.setattr(spool_writer, "boot_id", lambda: "now")
    sink, older = topics.opened(tmp_path)
    made = publishing(sink, writer, older, limits=topics.Limits(passed=True))
    async with running(made, sink):
        await spooled(sink, range(500))
        assert await made.drain(30)
        await until(lambda: not old.file.path.exists())
    found = await published(kafka)
    for instance in (old.instance, sink.instance):
        own = {
            partition: [event for event in events if event.producer.instance == instance]
            for partition, events in found.items()
        }
        check(own, 500)
    sink.close()
