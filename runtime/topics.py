"""Makes the topics, or checks them: partitions, replicas, what they keep and for how long (spec section 4).

Never changes a topic that is there: what differs is said in one line, with what to do about it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from runtime import kafka, kafka_clients
from runtime.kafka import Kafka, KafkaAwayError
from runtime.settings import Settings
from schemas import topics as names

_WITHIN_S = 30.0
_REQUEST_TIMEOUT_MS = 10_000
_LOOK_AGAIN_S = 0.1

_CHECKED = ("cleanup.policy", "retention.ms", "min.insync.replicas", "message.timestamp.type")
"""The rest is tuning, and the operator's."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One topic as it ought to be; `name` is without the prefix."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def plans(settings: Settings) -> tuple[Plan, ...]:
    """Give all five topics."""
    always = {
        "min.insync.replicas": str(settings.kafka_min_insync_replicas),
        # the broker's clock decides what is old, not a proxy's, nor the age of an event that a spool held for days
        "message.timestamp.type": "LogAppendTime",
    }
    # Proxies read these from their beginning at start, so what is superseded goes within minutes.
    small = {
        "segment.ms": _ms(timedelta(minutes=5)),
        "segment.bytes": str(32 * 1024 * 1024),
        "min.cleanable.dirty.ratio": "0.1",
        "max.compaction.lag.ms": _ms(timedelta(minutes=5)),
    }
    kept = {"cleanup.policy": "delete", "retention.ms": _ms(timedelta(days=35))}
    configs = {
        names.USAGE_EVENTS: kept,
        names.USAGE_UNREADABLE: kept,
        names.USAGE_DAILY: {
            "cleanup.policy": "compact,delete",
            "retention.ms": _ms(timedelta(days=400)),
            "segment.ms": _ms(timedelta(hours=1)),
            "max.compaction.lag.ms": _ms(timedelta(hours=1)),
        },
        names.LIMITS_DECISIONS: small | {"cleanup.policy": "compact,delete", "retention.ms": _ms(timedelta(hours=48))},
        # A tombstone carries its version in a header: as long as it is there, no older record can come back to life.
        names.GATEWAY_CONFIG: small | {"cleanup.policy": "compact", "delete.retention.ms": _ms(timedelta(days=7))},
    }
    return tuple(
        Plan(
            name,
            1 if name == names.GATEWAY_CONFIG else settings.kafka_partitions,
            settings.kafka_replication,
            always | config,
        )
        for name, config in configs.items()
    )


async def ensure(where: Kafka, wanted: Sequence[Plan], create: bool) -> list[str]:
    """Make the topics that are missing (where `create` says so); give one line for each thing that is not as wanted.

    Several processes may do so at once. Raises KafkaAwayError when Kafka does not answer in time.
    """
    kafka.hush()
    admin = AIOKafkaAdminClient(bootstrap_servers=where.bootstrap, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    kafka_clients.never_create_topics(admin._client)  # noqa: SLF001 - the admin client gives it to nobody
    try:
        async with asyncio.timeout(_WITHIN_S):
            await admin.start()
            return await _ensure(admin, where, wanted, create=create)
    except TimeoutError:
        raise KafkaAwayError(f"Kafka at {where.bootstrap} did not answer within {_WITHIN_S:g} s") from None
    except (KafkaError, OSError) as error:
        raise KafkaAwayError(f"Kafka at {where.bootstrap}: {error}") from error
    finally:
        await admin.close()


async def _ensure(admin: AIOKafkaAdminClient, where: Kafka, wanted: Sequence[Plan], *, create: bool) -> list[str]:
    there = await _describe(admin, [where.name(plan.name) for plan in wanted])
    missing = [plan for plan in wanted if where.name(plan.name) not in there]
    lines = []
    if missing and create:
        brokers = len((await admin.describe_cluster())["brokers"])
        lines = _too_few_brokers(missing, brokers) or await _create(admin, where, missing)
        if not lines:
            there = await _appeared(admin, [where.name(plan.name) for plan in wanted])
    elif missing:
        lines = [f"topic {where.name(plan.name)} is missing: run `tollgate migrate`" for plan in missing]
    configs = await _configs(admin, list(there))
    for plan in wanted:
        name = where.name(plan.name)
        if name in there:
            lines += _differences(name, plan, there[name], configs[name])
    return lines


def _too_few_brokers(missing: Sequence[Plan], brokers: int) -> list[str]:
    replication = max(plan.replication for plan in missing)
    if replication <= brokers:
        return []
    return [
        f"topics are to have {replication} replicas, but Kafka has {brokers} broker{'s' * (brokers != 1)}: "
        f"set TOLLGATE_KAFKA_REPLICATION and TOLLGATE_KAFKA_MIN_INSYNC_REPLICAS to {brokers} at most, or add brokers"
    ]


async def _create(admin: AIOKafkaAdminClient, where: Kafka, missing: Sequence[Plan]) -> list[str]:
    topics = [
        NewTopic(where.name(plan.name), plan.partitions, plan.replication, topic_configs=dict(plan.config))
        for plan in missing
    ]
    answer = await admin.create_topics(topics)
    lines = []
    for topic in answer.to_object()["topic_errors"]:
        error = for_code(topic["error_code"])
        if topic["error_code"] and error is not TopicAlreadyExistsError:  # another process was faster
            lines.append(f"topic {topic['topic']} cannot be made: {topic.get('error_message') or error.__name__}")
    return lines


async def _appeared(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Wait until brokers know what the controller has made; the caller's bound ends it."""
    while True:
        there = await _describe(admin, topics)
        if len(there) == len(topics) and all(p["leader"] >= 0 for ps in there.values() for p in ps):
            return there
        await asyncio.sleep(_LOOK_AGAIN_S)


async def _describe(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Give the partitions of those that are there."""
    found = await admin.describe_topics(topics)
    return {topic["topic"]: topic["partitions"] for topic in found if not topic["error_code"]}


async def _configs(admin: AIOKafkaAdminClient, topics: list[str]) -> dict[str, dict[str, str]]:
    if not topics:
        return {}
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics])
    return {
        resource["resource_name"]: {
            entry["config_names"]: entry["config_value"] for entry in resource["config_entries"]
        }
        for answer in answers
        for resource in answer.to_object()["resources"]
    }


def _differences(name: str, plan: Plan, partitions: list[dict[str, Any]], config: Mapping[str, str]) -> list[str]:
    lines = []
    if len(partitions) != plan.partitions:
        remedy = (
            "it must have one: delete it and run `tollgate migrate`"
            if plan.name == names.GATEWAY_CONFIG
            else f"set TOLLGATE_KAFKA_PARTITIONS={len(partitions)} (adding partitions means draining everything first)"
        )
        lines.append(f"topic {name} has {len(partitions)} partitions, {plan.partitions} wanted: {remedy}")
    replicas = min((len(partition["replicas"]) for partition in partitions), default=0)
    if replicas != plan.replication:
        lines.append(
            f"topic {name} has replication factor {replicas}, {plan.replication} wanted: "
            f"set TOLLGATE_KAFKA_REPLICATION={replicas}, or change it with kafka-reassign-partitions.sh"
        )
    for key in [key for key in _CHECKED if key in plan.config]:
        wanted, found = plan.config[key], config.get(key, "")
        if set(wanted.split(",")) != set(found.split(",")):
            lines.append(
                f"topic {name} has {key}={found}, {wanted} wanted: kafka-configs.sh --alter --entity-type topics "
                f"--entity-name {name} --add-config {key}={f'[{wanted}]' if ',' in wanted else wanted}"
            )
    return lines


def _ms(time: timedelta) -> str:
    return str(time // timedelta(milliseconds=1))
