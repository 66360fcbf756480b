"""The publisher over real spool files and a topic in memory: everything goes, once, in its order (counting 3)."""

import asyncio
import logging
from typing import Any

import pytest

from proxy.core import send_order
from proxy.spool.writer import Spool
from proxy.topic import publisher
from runtime.kafka import writer
from runtime.kafka.writer import RecordTooLargeError
from schemas.base import rfc3339
from tests.integration.proxy import fake_topic as topics
from tests.integration.proxy.fake_topic import (
    PARTITIONS,
    TODAY,
    Topic,
    partition_of,
    publishing,
    running,
    spooled,
    until,
)
from tests.support.events import as_contract


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    topics.be_quick(monkeypatch)


async def test_every_event_goes_once_in_its_order_as_the_spool_holds_it(sink: Spool, topic: Topic) -> None:
    made = publishing(sink, topic)
    await spooled(sink, range(500))
    async with running(made):
        await spooled(sink, range(500, 1500))
        assert await made.drain(10)
    found = topic.events
    assert sorted(found) == list(range(PARTITIONS))
    for partition, events in found.items():
        expected = [
            as_contract(event)
            for event in sink.file.remaining()
            if partition_of(int(event.idempotency_key[4:])) == partition
        ]
        assert events == expected
    assert made.published == 1500
    assert made.waiting == 0


async def test_a_record_is_keyed_by_the_last_charged_group_and_is_a_cloud_event(sink: Spool, topic: Topic) -> None:
    made = publishing(sink, topic)
    await spooled(sink, [5])
    async with running(made):
        assert await made.drain(10)
    ((record,),) = topic.records.values()
    assert record.key == b"group-5"
    assert dict(record.headers) == {
        "ce_id": b"key-5",
        "ce_type": b"tollgate.usage.events.v1",
        "ce_source": sink.instance.encode(),
        "ce_specversion": b"1.0",
        "ce_time": rfc3339(TODAY).encode(),
    }


async def test_a_stuck_partition_does_not_hold_the_others_back(
    sink: Spool, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_order, "MOST_AT_ONCE", 50)
    made = publishing(sink, topic)
    stuck = partition_of(0)
    topic.away.add(stuck)
    await spooled(sink, range(1200))
    others = [number for number in range(1200) if partition_of(number) != stuck]
    async with running(made):
        await until(lambda: len(topic.sequences) == len(others))
        assert stuck not in topic.records
        assert made.waiting == 1200, "the first event is not there"
        topic.away.clear()
        assert await made.drain(10)
    assert topic.sequences == list(range(1, 1201))


async def test_how_far_the_others_may_go_is_bounded(sink: Spool, topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_order, "MOST_AT_ONCE", 10)
    monkeypatch.setattr(send_order, "MOST_HELD", 40)
    made = publishing(sink, topic)
    stuck = partition_of(0)
    topic.held[stuck] = asyncio.Event()
    await spooled(sink, [0] * 40 + [number for number in range(200) if partition_of(number) != stuck])
    async with running(made):
        assert not await made.drain(0.2)
        assert topic.sequences == []
        topic.held[stuck].set()
        assert await made.drain(10)
    assert topic.sequences == list(range(1, sink.file.end))


async def test_an_outage_is_said_once_at_each_end_and_drained_in_order(
    sink: Spool, topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    made = publishing(sink, topic)
    topic.away |= set(range(PARTITIONS))
    with caplog.at_level(logging.INFO, publisher.__name__):
        async with running(made):
            await spooled(sink, range(300))
            await until(lambda: topic.refused > 20)
            assert made.is_away
            topic.away.clear()
            assert await made.drain(10)
            assert not made.is_away
            await spooled(sink, range(300, 310))
            assert await made.drain(10)
            topic.away |= set(range(PARTITIONS))
            before = topic.refused
            await spooled(sink, range(310, 500))
            await until(lambda: topic.refused > before + 20)
            topic.away.clear()
            assert await made.drain(10)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2
    assert topic.sequences == list(range(1, 501))
    for events in topic.events.values():
        sequences = [event.producer.sequence for event in events]
        assert sequences == sorted(sequences)


async def test_a_topic_whose_bound_was_lowered_is_waited_for(
    sink: Spool, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = topic.write_to
    refusals = iter([RecordTooLargeError("raise its max.message.bytes")] * 2)

    async def refusing(*given: Any) -> list[int]:
        for refusal in refusals:
            raise refusal
        return await write(*given)

    monkeypatch.setattr(topic, "write_to", refusing)
    made = publishing(sink, topic)
    await spooled(sink, [1])
    async with running(made):
        assert await made.drain(10)
    assert topic.sequences == [1]


async def test_draining_says_when_it_did_not_manage(sink: Spool, topic: Topic) -> None:
    made = publishing(sink, topic)
    topic.away.add(partition_of(1))
    async with running(made):
        assert await made.drain(1), "there is nothing"
        await spooled(sink, [1])
        assert not await made.drain(0.05)


async def test_a_failure_that_is_no_outage_ends_the_process(sink: Spool, topic: Topic) -> None:
    class Broken(topics.Limits):
        def acknowledge(self, *_: object) -> None:
            raise ZeroDivisionError

    made = publishing(sink, topic, limits=Broken())
    await spooled(sink, [1])
    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(made.run(), 10)
    assert raised.group_contains(ZeroDivisionError)


def test_keys_reach_every_partition() -> None:
    assert {writer.partition_of(group.encode(), PARTITIONS) for group in topics.GROUPS} == set(range(PARTITIONS))
