"""Topics on a real broker: made once, by however many processes, and every difference told in one line."""

import asyncio

import pytest

from runtime import topics
from runtime.kafka import Kafka, KafkaAwayError
from runtime.settings import Settings
from schemas.topics import GATEWAY_CONFIG, USAGE_EVENTS

ONE_BROKER = Settings(kafka_partitions=3, kafka_replication=1, kafka_min_insync_replicas=1)
PLANS = topics.plans(ONE_BROKER)


async def test_several_processes_make_them_at_once(kafka: Kafka) -> None:
    assert await asyncio.gather(*[topics.ensure(kafka, PLANS, create=True) for _ in range(4)]) == [[], [], [], []]
    assert await topics.ensure(kafka, PLANS, create=False) == []


async def test_a_missing_topic_is_named_with_its_prefix_and_what_makes_it(kafka: Kafka) -> None:
    lines = await topics.ensure(kafka, PLANS, create=False)

    assert len(lines) == len(PLANS)
    assert f"topic {kafka.name(USAGE_EVENTS)} is missing: run `tollgate migrate`" in lines


async def test_too_few_brokers_name_the_setting(kafka: Kafka) -> None:
    (line,) = await topics.ensure(kafka, topics.plans(Settings(kafka_replication=3)), create=True)

    assert "3 replicas" in line
    assert "1 broker:" in line
    assert "TOLLGATE_KAFKA_REPLICATION" in line
    assert len(await topics.ensure(kafka, PLANS, create=False)) == len(PLANS), "nothing was made"


async def test_each_difference_is_one_line_that_says_what_to_do(kafka: Kafka) -> None:
    await topics.ensure(kafka, PLANS, create=True)
    other = Settings(kafka_partitions=5, kafka_replication=2, kafka_min_insync_replicas=2)
    (wanted,) = [plan for plan in topics.plans(other) if plan.name == USAGE_EVENTS]
    config = {**wanted.config, "retention.ms": "1000", "cleanup.policy": "compact,delete"}

    lines = await topics.ensure(kafka, [topics.Plan(USAGE_EVENTS, 5, 2, config)], create=True)

    name = kafka.name(USAGE_EVENTS)
    assert lines == [
        f"topic {name} has 3 partitions, 5 wanted: set TOLLGATE_KAFKA_PARTITIONS=3 "
        "(adding partitions means draining everything first)",
        f"topic {name} has replication factor 1, 2 wanted: set TOLLGATE_KAFKA_REPLICATION=1, "
        "or change it with kafka-reassign-partitions.sh",
        f"topic {name} has cleanup.policy=delete, compact,delete wanted: kafka-configs.sh --alter --entity-type topics "
        f"--entity-name {name} --add-config cleanup.policy=[compact,delete]",
        f"topic {name} has retention.ms=3024000000, 1000 wanted: kafka-configs.sh --alter --entity-type topics "
        f"--entity-name {name} --add-config retention.ms=1000",
        f"topic {name} has min.insync.replicas=1, 2 wanted: kafka-configs.sh --alter --entity-type topics "
        f"--entity-name {name} --add-config min.insync.replicas=2",
    ]


async def test_a_split_config_topic_cannot_be_mended_by_a_setting(kafka: Kafka) -> None:
    (plan,) = [plan for plan in PLANS if plan.name == GATEWAY_CONFIG]
    await topics.ensure(kafka, [topics.Plan(plan.name, 2, 1, plan.config)], create=True)

    (line,) = await topics.ensure(kafka, [plan], create=False)

    assert "it must have one: delete it and run `tollgate migrate`" in line


async def test_what_kafka_refuses_is_told_with_its_reason(kafka: Kafka) -> None:
    (plan,) = [plan for plan in PLANS if plan.name == GATEWAY_CONFIG]
    impossible = topics.Plan(plan.name, 1, 1, {**plan.config, "segment.bytes": "none"})

    (line,) = await topics.ensure(kafka, [impossible], create=True)

    assert f"topic {kafka.name(GATEWAY_CONFIG)} cannot be made" in line
    assert "segment.bytes" in line


async def test_no_kafka_is_told_as_such() -> None:
    with pytest.raises(KafkaAwayError, match=r"127\.0\.0\.1:1"):
        await topics.ensure(Kafka("127.0.0.1:1"), PLANS, create=True)
