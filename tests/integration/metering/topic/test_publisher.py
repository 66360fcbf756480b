"""Decisions and daily usage as finance and the proxies find them in Kafka."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from metering.topic.publisher import KafkaTotals, key_of
from runtime.kafka.writer import Kafka, KafkaAwayError, PlainRecord, Writer, partition_of
from schemas.topics import LIMITS_DECISIONS, USAGE_DAILY
from tests.contracts.metering.topic.test_totals_sink import DAY, decision, usage
from tests.support import records
from tests.unit.metering.factories import SLUG, HandClock


async def test_keys_headers_and_values_are_as_the_contracts_say(kafka: Kafka) -> None:
    await records.make_topics(kafka, partitions=3, only=(LIMITS_DECISIONS, USAGE_DAILY))
    writer = Writer(kafka, "test")
    await KafkaTotals(writer, HandClock()).publish([decision("group-a", 7)], [usage("group-a", 3)])
    await writer.close()

    key = f"group-a/{SLUG}/2025-03-01"
    assert key_of("group-a", SLUG, DAY) == key
    for topic, version, at in (
        (LIMITS_DECISIONS, 7, b"2025-03-01T12:00:00.000Z"),
        (USAGE_DAILY, 3, b"2025-03-01T12:00:00.003Z"),
    ):
        ((partition, found),) = [
            (number, one) for number, some in (await records.read(kafka, topic)).items() for one in some
        ]
        assert found.key == key.encode()
        assert partition == partition_of(key.encode(), 3)
        assert dict(found.headers) == {
            "ce_id": f"{key}/{version}".encode(),
            "ce_type": f"tollgate.{topic}".encode(),
            "ce_source": b"tollgate/metering",
            "ce_specversion": b"1.0",
            "ce_time": at,
        }
        value = json.loads(found.value)
        assert (value["groupId"], value["modelSlug"], value["day"], value["version"]) == (
            "group-a",
            SLUG,
            "2025-03-01",
            version,
        )


class SlowWriter(Writer):
    """Fails at once for one topic, and takes its time for the other."""

    def __init__(self) -> None:
        self.written: list[str] = []

    async def write(self, topic: str, records: Sequence[PlainRecord], within_s: float = 10.0) -> None:
        if topic == LIMITS_DECISIONS:
            raise KafkaAwayError("away")
        await asyncio.sleep(0)
        self.written.append(topic)


async def test_a_failure_of_one_topic_is_told_after_the_other_has_come_to_its_end() -> None:
    writer = SlowWriter()
    with pytest.raises(KafkaAwayError):
        await KafkaTotals(writer, HandClock()).publish([decision("a", 1)], [usage("a", 1)])
    assert writer.written == [USAGE_DAILY]
