"""Topics on a real broker: made once, by however many processes, and every difference told in one line."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from runtime.kafka import feed, topics
from runtime.kafka.writer import Kafka, KafkaAwayError, KafkaRecord, Writer
from runtime.settings import Settings
from schemas.topics import GATEWAY_CONFIG, USAGE_EVENTS
from tests.support import records

ONE_BROKER = Settings(kafka_partitions=3, kafka_replication=1, kafka_min_insync_replicas=1)
PLANS = topics.plans(ONE_BROKER)
WITHIN_S = 60
_LOOK_EVERY_S = 0.1  # nobody tells when a broker has made a topic


@asynccontextmanager
async def admin(where: Kafka) -> AsyncIterator[AIOKafkaAdminClient]:
    """A client as aiokafka has it."""
    client = AIOKafkaAdminClient(bootstrap_servers=where.bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def made_by_a_stock_client(where: Kafka) -> None:
    """Have the broker make all topics, by asking about them."""
    names = [where.name(plan.name) for plan in PLANS]
    async with asyncio.timeout(WITHIN_S), admin(where) as client:
        while True:
            if not any(topic["error_code"] for topic in await client.describe_topics(names)):
                return
            await asyncio.sleep(_LOOK_EVERY_S)


async def write(where: Kafka, topic: str) -> None:
    writer = Writer(where, "test")
    await writer.write(topic, [KafkaRecord(b"key", b"value")])
    await writer.close()


async def test_several_processes_make_them_at_once(kafka: Kafka) -> None:
    assert await asyncio.gather(*[topics.ensure(kafka, PLANS, create=True) for _ in range(4)]) == [[], [], [], []]
    assert await topics.ensure(kafka, PLANS, create=False) == []


async def test_the_broker_packs_what_is_written_and_every_reader_reads_it(kafka: Kafka) -> None:
    await topics.ensure(kafka, PLANS, create=True)
    async with admin(kafka) as client:
        found = await topics._configs(client, [kafka.name(plan.name) for plan in PLANS])
    assert {name: config["compression.type"] for name, config in found.items()} == {
        kafka.name(plan.name): plan.config.get("compression.type", "producer") for plan in PLANS
    }
    await write(kafka, USAGE_EVENTS)
    assert [record.value for some in (await records.read(kafka, USAGE_EVENTS)).values() for record in some] == [
        b"value"
    ]


async def test_a_missing_topic_is_named_with_its_prefix_and_what_makes_it(kafka: Kafka) -> None:
    lines = topics.report(await topics.ensure(kafka, PLANS, create=False))

    missing = [f"topic {kafka.name(plan.name)} is missing" for plan in PLANS]
    assert lines == [*missing, "To mend this, type:", "  tollgate migrate"]


async def test_too_few_brokers_name_the_settings(kafka: Kafka) -> None:
    lines = topics.report(await topics.ensure(kafka, topics.plans(Settings(kafka_replication=3)), create=True))

    assert lines == [
        "topics are to have 3 replicas, and Kafka has 1 broker",
        "To mend this, type:",
        "  export TOLLGATE_KAFKA_REPLICATION=1 TOLLGATE_KAFKA_MIN_INSYNC_REPLICAS=1",
        "  tollgate migrate",
    ]
    assert len(await topics.ensure(kafka, PLANS, create=False)) == len(PLANS), "nothing was made"


async def test_each_difference_is_a_line_and_each_command_is_told_once(kafka: Kafka) -> None:
    await topics.ensure(kafka, PLANS, create=True)
    await write(kafka, USAGE_EVENTS)
    (plan,) = [plan for plan in PLANS if plan.name == USAGE_EVENTS]
    config = {**plan.config, "retention.ms": "1000", "cleanup.policy": "compact,delete", "min.insync.replicas": "2"}

    lines = topics.report(await topics.ensure(kafka, [topics.Plan(USAGE_EVENTS, 5, 2, config)], create=True))

    name = kafka.name(USAGE_EVENTS)
    assert lines == [
        f"topic {name} (has held records) has 3 partitions, 5 wanted",
        f"topic {name} (has held records) has replication factor 1, 2 wanted",
        f"topic {name} (has held records) has cleanup.policy=delete, compact,delete wanted",
        f"topic {name} (has held records) has retention.ms=3024000000, 1000 wanted",
        f"topic {name} (has held records) has min.insync.replicas=1, 2 wanted",
        "To mend this, type:",
        "  export TOLLGATE_KAFKA_PARTITIONS=3",
        "  export TOLLGATE_KAFKA_REPLICATION=1 TOLLGATE_KAFKA_MIN_INSYNC_REPLICAS=1",
        f"  kafka-configs.sh --bootstrap-server {kafka.bootstrap} --alter --entity-type topics --entity-name {name} "
        "--add-config 'cleanup.policy=[compact,delete],retention.ms=1000'",
        "  tollgate migrate",
    ]


async def test_what_a_stock_broker_made_of_its_own_accord_is_made_anew(kafka: Kafka) -> None:
    await made_by_a_stock_client(kafka)
    lines = topics.report(await topics.ensure(kafka, PLANS, create=True))
    assert f"topic {kafka.name(USAGE_EVENTS)} (empty) has 1 partition, 3 wanted" in lines
    assert lines[-2:] == ["To mend this, type:", "  tollgate migrate --recreate-empty"]

    assert await topics.recreate_empty(kafka, PLANS) == [kafka.name(plan.name) for plan in PLANS]

    assert await topics.ensure(kafka, PLANS, create=False) == []
    assert await topics.recreate_empty(kafka, PLANS) == [], "what is as wanted is left alone"


async def test_what_has_held_a_record_is_never_made_anew(kafka: Kafka) -> None:
    await made_by_a_stock_client(kafka)
    await write(kafka, USAGE_EVENTS)
    await write(kafka, GATEWAY_CONFIG)
    async with admin(kafka) as client:  # its records have gone, as they do by age: positions beyond its end are left
        await client.delete_records({TopicPartition(kafka.name(GATEWAY_CONFIG), 0): RecordsToDelete(before_offset=-1)})

    made = await topics.recreate_empty(kafka, PLANS)

    used = (USAGE_EVENTS, GATEWAY_CONFIG)
    assert made == [kafka.name(plan.name) for plan in PLANS if plan.name not in used]
    assert [record.value for record in (await records.read(kafka, USAGE_EVENTS))[0]] == [b"value"]
    assert await feed.ends(kafka, GATEWAY_CONFIG) == {0: 1}
    left = [problem.text for problem in await topics.ensure(kafka, PLANS, create=False)]
    assert left
    assert all(text.startswith(tuple(f"topic {kafka.name(name)} (has held records)" for name in used)) for text in left)


async def test_nothing_is_deleted_where_it_could_not_be_made_anew(kafka: Kafka) -> None:
    await made_by_a_stock_client(kafka)
    wanted = topics.plans(Settings(kafka_replication=3))

    assert await topics.recreate_empty(kafka, wanted) == []

    problems = await topics.ensure(kafka, wanted, create=True)
    assert problems[0].text == "topics are to have 3 replicas, and Kafka has 1 broker"
    assert not [problem for problem in problems if "is missing" in problem.text]


async def test_a_split_config_topic_cannot_be_mended_by_a_setting(kafka: Kafka) -> None:
    (plan,) = [plan for plan in PLANS if plan.name == GATEWAY_CONFIG]
    await topics.ensure(kafka, [topics.Plan(plan.name, 2, 1, plan.config)], create=True)
    await write(kafka, GATEWAY_CONFIG)

    (problem,) = await topics.ensure(kafka, [plan], create=False)

    assert problem.commands == (
        f"kafka-topics.sh --bootstrap-server {kafka.bootstrap} --delete --topic {kafka.name(GATEWAY_CONFIG)}",
        "tollgate migrate",
    )


async def test_what_kafka_refuses_is_told_with_its_reason(kafka: Kafka) -> None:
    (plan,) = [plan for plan in PLANS if plan.name == GATEWAY_CONFIG]
    impossible = topics.Plan(plan.name, 1, 1, {**plan.config, "segment.bytes": "none"})

    (problem,) = await topics.ensure(kafka, [impossible], create=True)

    assert problem.text.startswith(f"topic {kafka.name(GATEWAY_CONFIG)} cannot be made: ")
    assert "segment.bytes" in problem.text


async def test_no_kafka_is_told_as_such() -> None:
    with pytest.raises(KafkaAwayError, match=r"127\.0\.0\.1:1"):
        await topics.ensure(Kafka("127.0.0.1:1"), PLANS, create=True)
