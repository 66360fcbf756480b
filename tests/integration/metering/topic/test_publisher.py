"""Decisions and daily usage as finance and the proxies find them in Kafka."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from metering.core.sums import Counter
from metering.topic.publisher import KafkaTotals, counter_of, key_of
from runtime.kafka.reader import LogBounds
from runtime.kafka.writer import Kafka, KafkaAwayError, PlainRecord, RecordTooLargeError, Writer, partition_of
from schemas.topics import LIMITS_DECISIONS, USAGE_DAILY
from tests.contracts.metering.topic.test_totals_sink import DAY, part, usage
from tests.support import records
from tests.unit.metering.factories import SLUG, HandClock


async def test_keys_headers_and_values_are_as_the_contracts_say(kafka: Kafka) -> None:
    await records.make_topics(kafka, partitions=3, only=(LIMITS_DECISIONS, USAGE_DAILY))
    writer = Writer(kafka, "test")
    await KafkaTotals(writer, HandClock(), never).publish([part("group-a", 7, partition=2)], [usage("group-a", 3)])
    await writer.close()

    key = f"group-a/{SLUG}/2025-03-01"
    assert key_of("group-a", SLUG, DAY) == key
    for topic, of, id_, place, at in (
        (LIMITS_DECISIONS, f"counter/{key}", f"counter/{key}/2/7", 2, b"2025-03-01T12:00:00.000Z"),
        (USAGE_DAILY, key, f"{key}/3", partition_of(key.encode(), 3), b"2025-03-01T12:00:00.003Z"),
    ):
        ((partition, found),) = [
            (number, one) for number, some in (await records.read(kafka, topic)).items() for one in some
        ]
        assert (found.key, partition) == (of.encode(), place)
        assert dict(found.headers) == {
            "ce_id": id_.encode(),
            "ce_type": f"tollgate.{topic}".encode(),
            "ce_source": b"tollgate/metering",
            "ce_specversion": b"1.0",
            "ce_time": at,
        }
        value = json.loads(found.value)
        assert (value["groupId"], value["modelSlug"]) == ("group-a", SLUG)
        assert (value.get("period"), value.get("lane"), value.get("at")) == (
            ("2025-03-01", 2, 107) if topic == LIMITS_DECISIONS else (None, None, None)
        )


def test_a_decisions_key_names_its_counter() -> None:
    assert counter_of("counter/g/a/b/2025-03-01") == Counter(DAY, "g", "a/b")
    assert counter_of("counter/g/a/b/2025-03") == Counter(DAY, "g", "a/b")
    for other in ("whole", "spread/g", "counter/g", "counter/g/a/b/2025-3", "counter/g/a/b/2025", "counter//"):
        assert counter_of(other) is None


class PickyWriter(Writer):
    """Takes no record of one group."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    async def write_to(
        self, topic: str, partition: int, records: Sequence[PlainRecord], within_s: float = 10.0
    ) -> list[int]:
        if any(b"too-large" in record[0] for record in records):
            raise RecordTooLargeError("a record takes more than it may")
        self.written += [record[0] for record in records]
        return list(range(len(self.written) - len(records), len(self.written)))

    async def write(self, topic: str, records: Sequence[PlainRecord], within_s: float = 10.0) -> None:
        await self.write_to(topic, 0, records)


async def test_a_record_that_is_too_large_is_put_aside_and_the_others_are_told() -> None:
    writer, aside = PickyWriter(), list[str]()
    totals = KafkaTotals(writer, HandClock(), lambda key, _: aside.append(key))
    names = ["a", "b", "too-large", "c", "d"]
    await totals.publish([part(name, 1) for name in names], [usage(name, 1) for name in names])

    assert len(writer.written) == 8
    assert aside == [f"counter/too-large/{SLUG}/2025-03-01", f"too-large/{SLUG}/2025-03-01"]
    assert totals.gap(1) is None


async def test_a_stretch_that_another_wrote_is_a_gap() -> None:
    writer = PickyWriter()
    totals = KafkaTotals(writer, HandClock(), never)
    totals.begin(1, 0)
    await totals.publish([part("a", 1), part("b", 1)], [])
    assert (totals.gap(1), totals.end_of(1)) == (None, 2)
    writer.written += [b"late"] * 3
    await totals.publish([part("a", 2)], [])
    assert (totals.gap(1), totals.end_of(1)) == (LogBounds(2, 5), 6)
    assert totals.gap(1) is None, "it is told once"


def never(key: str, error: Exception) -> None:
    raise AssertionError(key) from error


class SlowWriter(Writer):
    """Fails at once for one topic, and takes its time for the other."""

    def __init__(self) -> None:
        self.written: list[str] = []

    async def write_to(
        self, topic: str, partition: int, records: Sequence[PlainRecord], within_s: float = 10.0
    ) -> list[int]:
        raise KafkaAwayError("away")

    async def write(self, topic: str, records: Sequence[PlainRecord], within_s: float = 10.0) -> None:
        await asyncio.sleep(0)
        self.written.append(topic)


async def test_a_failure_of_one_topic_is_told_after_the_other_has_come_to_its_end() -> None:
    writer = SlowWriter()
    with pytest.raises(KafkaAwayError):
        await KafkaTotals(writer, HandClock(), never).publish([part("a", 1)], [usage("a", 1)])
    assert writer.written == [USAGE_DAILY]
