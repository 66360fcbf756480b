"""Makes the topics, or checks them: partitions, replicas, what they keep and for how long (contract 4).

Never changes a topic that has ever held a record: what differs is told, with the commands that mend it.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from runtime.kafka import clients, feed, topic_configs, writer
from runtime.kafka.writer import Kafka, KafkaAwayError
from runtime.settings import Settings
from schemas import topics as names

_WITHIN_S = 60.0
_KNOWN_WITHIN_S = 20.0
_REQUEST_TIMEOUT_MS = 10_000
_LOOK_AGAIN_S = 0.1

_MIN_INSYNC = "min.insync.replicas"
_CHECKED = ("cleanup.policy", "retention.ms", _MIN_INSYNC, "message.timestamp.type")
"""The rest is tuning, and the operator's."""

_MIGRATE = "tollgate migrate"
_RECREATE = "tollgate migrate --recreate-empty"


@dataclass(frozen=True, slots=True)
class Plan:
    """One topic as it ought to be; `name` is without the prefix."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


def plans(settings: Settings) -> tuple[Plan, ...]:
    """Return all topics."""
    always = {
        _MIN_INSYNC: str(settings.kafka_min_insync_replicas),
        # the broker's clock decides what is old, not a proxy's, nor the age of an event that a spool held for days
        "message.timestamp.type": "LogAppendTime",
    }
    return tuple(
        Plan(
            name,
            1 if name == names.GATEWAY_CONFIG else settings.kafka_partitions,
            settings.kafka_replication,
            {**always, **config},
        )
        for name, config in topic_configs.CONFIGS.items()
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about the topics that is not as wanted."""

    text: str
    """One line."""
    commands: tuple[str, ...]
    """What to type about it, in this order, each one line."""


class _Found(NamedTuple):
    """A topic as it is."""

    partitions: Sequence[Mapping[str, Any]]
    config: Mapping[str, str]

    @property
    def replicas(self) -> int:
        return min((len(partition["replicas"]) for partition in self.partitions), default=0)


def report(problems: Sequence[Problem]) -> list[str]:
    """Return the lines that tell a person of `problems`: first each of them, then what to type, each command once."""
    commands = list(dict.fromkeys(command for problem in problems for command in problem.commands))
    if _RECREATE in commands:  # it does what the other does, too
        commands = [command for command in commands if command != _MIGRATE]
    commands.sort(key=lambda command: (command in (_MIGRATE, _RECREATE), not command.startswith("export ")))
    lines = [problem.text for problem in problems]
    return [*lines, "To mend this, type:", *(f"  {command}" for command in commands)] if commands else lines


def told(problems: Sequence[Problem]) -> str:
    """Return the same as one text under a heading."""
    return "\n  ".join(["Kafka's topics are not as the settings want them:", *report(problems)])


async def ensure(where: Kafka, wanted: Sequence[Plan], create: bool) -> list[Problem]:
    """Make the topics that are missing (where `create` says so); return what is not as wanted after that.

    Several processes may do so at once. Raise KafkaAwayError when Kafka does not answer in time.
    """
    async with _asked(where, wanted) as asked:
        return await asked.ensure(create=create)


async def recreate_empty(where: Kafka, wanted: Sequence[Plan]) -> list[str]:
    """Delete and make anew the topics that are not as wanted and never held a record; return their names.

    Nothing may write to them meanwhile, for Kafka cannot delete a topic on the condition that it is empty: no role
    begins on such topics. Does nothing where Kafka has too few brokers for what is wanted. What could not be made anew
    is missing afterwards. Raise KafkaAwayError when Kafka refuses the deletion, or does not answer in time.
    """
    async with _asked(where, wanted) as asked:
        return await asked.recreate_empty()


async def remove(where: Kafka, name: str) -> bool:
    """Delete a topic that nobody reads or writes any more; say whether it was there. Raise KafkaAwayError."""
    old = Plan(name, 1, 1, {})
    async with _asked(where, [old]) as asked:
        return await asked.remove(old)


@asynccontextmanager
async def _asked(where: Kafka, wanted: Sequence[Plan]) -> AsyncIterator["_Topics"]:
    writer.hush()
    admin = clients.admin(where, request_timeout_ms=_REQUEST_TIMEOUT_MS)
    try:
        async with asyncio.timeout(_WITHIN_S):
            await admin.start()
            yield _Topics(admin, where, wanted)
    except TimeoutError:
        raise KafkaAwayError(f"Kafka at {where.bootstrap} did not answer within {_WITHIN_S:g} s") from None
    except (KafkaError, OSError) as error:
        raise KafkaAwayError(f"Kafka at {where.bootstrap}: {error}") from error
    finally:
        await admin.close()


class _Topics:
    """The topics of some plans, by an admin client. Every wait ends with its caller's bound."""

    def __init__(self, admin: AIOKafkaAdminClient, where: Kafka, wanted: Sequence[Plan]) -> None:
        self._admin = admin
        self._where = where
        self._wanted = wanted

    async def ensure(self, *, create: bool) -> list[Problem]:
        """Make the missing ones, as `create` says; return what is not as wanted after that."""
        found = await self._look()
        empty = await self._never_used(found)
        missing = [plan for plan in self._wanted if plan.name not in found]
        problems = await self._too_few_brokers([*missing, *empty])
        if missing and create and not problems:
            problems = await self._create(missing)
            if not problems:
                found |= await self._once_known(missing)
        elif not create:
            problems += [Problem(f"topic {self._name(plan)} is missing", (_MIGRATE,)) for plan in missing]
        for plan in self._wanted:
            if plan.name in found:
                problems += _different(self._where, plan, found[plan.name], is_empty=plan in empty)
        return problems

    async def recreate_empty(self) -> list[str]:
        """Make anew what never held a record; return the names."""
        empty = await self._never_used(await self._look())
        if not empty or await self._too_few_brokers(empty):
            return []
        await self._delete(empty)
        if not await self._create(empty):
            await self._once_known(empty)
        return [self._name(plan) for plan in empty]

    async def remove(self, plan: Plan) -> bool:
        """Delete it; say whether it was there."""
        is_there = bool(await self._look([plan]))
        if is_there:
            await self._delete([plan])
        return is_there

    def _name(self, plan: Plan) -> str:
        return self._where.name(plan.name)

    async def _look(self, plans: Sequence[Plan] = ()) -> dict[str, _Found]:
        """Return those that are there of `plans`, or of all, by the plans' names."""
        plans = plans or self._wanted
        described = await self._admin.describe_topics([self._name(plan) for plan in plans])
        partitions = {topic["topic"]: topic["partitions"] for topic in described if not topic["error_code"]}
        configs = await _configs(self._admin, list(partitions))
        return {
            plan.name: _Found(partitions[name], configs.get(name, {}))
            for plan in plans
            if (name := self._name(plan)) in partitions
        }

    async def _never_used(self, found: Mapping[str, _Found]) -> list[Plan]:
        """Return the plans whose topics are not as wanted and have not held a single record since they were made.

        A topic whose records have gone is not among them: positions in the database lie beyond its end if it is made
        anew. An end of 0 is such a one's that its beginning is 0 too.
        """
        different = [plan for plan in self._wanted if plan.name in found and _differences(plan, found[plan.name])]
        return [plan for plan in different if not any((await feed.ends(self._where, plan.name)).values())]

    async def _too_few_brokers(self, plans: Sequence[Plan]) -> list[Problem]:
        if not plans:
            return []
        brokers = len((await self._admin.describe_cluster())["brokers"])
        plan = max(plans, key=lambda plan: plan.replication)
        if plan.replication <= brokers:
            return []
        text = f"topics are to have {plan.replication} replicas, and Kafka has {brokers} broker{'s' * (brokers != 1)}"
        return [Problem(text, (_export_replicas(plan, brokers), _MIGRATE))]

    async def _delete(self, plans: Sequence[Plan]) -> None:
        """Delete topics, and wait until they are gone: as long as a broker may be behind, for others may make them.

        Raise KafkaError where Kafka refuses that.
        """
        answer = await self._admin.delete_topics([self._name(plan) for plan in plans])
        for name, code in answer.topic_error_codes:
            if code and for_code(code) is not UnknownTopicOrPartitionError:  # another process was faster
                raise for_code(code)(f"{name} cannot be deleted")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _KNOWN_WITHIN_S
        while True:
            if not await self._look(plans) or loop.time() > deadline:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _create(self, plans: Sequence[Plan]) -> list[Problem]:
        answer = await self._admin.create_topics(
            [
                NewTopic(self._name(plan), plan.partitions, plan.replication, topic_configs=dict(plan.config))
                for plan in plans
            ]
        )
        problems = []
        for topic in answer.to_object()["topic_errors"]:
            error = for_code(topic["error_code"])
            if topic["error_code"] and error is not TopicAlreadyExistsError:  # another process was faster
                reason = topic.get("error_message") or error.__name__
                problems.append(Problem(f"topic {topic['topic']} cannot be made: {reason}", ()))
        return problems

    async def _once_known(self, made: Sequence[Plan]) -> dict[str, _Found]:
        """Wait until brokers know what the controller has made; return it as it is.

        Where another has made it otherwise meanwhile, that is returned when a broker can no longer be merely behind.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _KNOWN_WITHIN_S
        while True:
            found = await self._look(made)
            leaders = [partition["leader"] for topic in found.values() for partition in topic.partitions]
            is_known = len(found) == len(made) and min(leaders) >= 0
            if is_known and (loop.time() > deadline or not any(_differences(one, found[one.name]) for one in made)):
                return found
            await asyncio.sleep(_LOOK_AGAIN_S)


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


def _differences(plan: Plan, found: _Found) -> list[str]:
    """Return what a topic has and what it ought to have, a line for each difference."""
    lines = []
    if len(found.partitions) != plan.partitions:
        lines.append(f"{len(found.partitions)} partition{'s' * (len(found.partitions) != 1)}, {plan.partitions} wanted")
    if found.replicas != plan.replication:
        lines.append(f"replication factor {found.replicas}, {plan.replication} wanted")
    return lines + [f"{key}={found.config.get(key, '')}, {plan.config[key]} wanted" for key in _changed(plan, found)]


def _changed(plan: Plan, found: _Found) -> list[str]:
    return [
        key
        for key in _CHECKED
        if key in plan.config and set(plan.config[key].split(",")) != set(found.config.get(key, "").split(","))
    ]


def _different(where: Kafka, plan: Plan, found: _Found, *, is_empty: bool) -> list[Problem]:
    commands = (_RECREATE,) if is_empty else _commands(where, plan, found)
    state = "empty" if is_empty else "has held records"
    return [
        Problem(f"topic {where.name(plan.name)} ({state}) has {line}", commands) for line in _differences(plan, found)
    ]


def _commands(where: Kafka, plan: Plan, found: _Found) -> tuple[str, ...]:
    """Return what brings settings and a topic together without a loss of its records."""
    name, commands = where.name(plan.name), []
    if len(found.partitions) != plan.partitions:  # a key's records stay in the partition that they are in
        commands.append(
            f"kafka-topics.sh --bootstrap-server {where.bootstrap} --delete --topic {name}"
            if plan.name == names.GATEWAY_CONFIG  # it must have one; control writes it again
            else f"export TOLLGATE_KAFKA_PARTITIONS={len(found.partitions)}"
        )
    if found.replicas != plan.replication:
        commands.append(_export_replicas(plan, found.replicas))
    replicas = min(found.replicas, plan.replication)
    values = [
        f"{key}=[{plan.config[key]}]" if "," in plan.config[key] else f"{key}={plan.config[key]}"
        for key in _changed(plan, found)
        if key != _MIN_INSYNC or int(plan.config[key]) <= replicas  # nobody could write to it
    ]
    if values:
        commands.append(
            f"kafka-configs.sh --bootstrap-server {where.bootstrap} --alter --entity-type topics --entity-name {name} "
            f"--add-config {shlex.quote(','.join(values))}"
        )
    return (*commands, _MIGRATE)


def _export_replicas(plan: Plan, replicas: int) -> str:
    in_sync = min(int(plan.config[_MIN_INSYNC]), replicas)
    return f"export TOLLGATE_KAFKA_REPLICATION={replicas} TOLLGATE_KAFKA_MIN_INSYNC_REPLICAS={in_sync}"
