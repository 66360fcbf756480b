"""aiokafka's clients, so that none of ours creates a topic by asking about it.

Where `auto.create.topics.enable` is true, which is Kafka's default, a metadata request says whether the broker may
create the topics that it names. aiokafka 0.14 always says that it may, and has no option for it: a topic that was asked
about before `tollgate migrate` would have the broker's partitions and retention instead of ours.
"""

from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.protocol.metadata import MetadataRequest


class _Connection(AIOKafkaConnection):  # type: ignore[misc]  # it has no types
    def send(self, request: Any, expect_response: bool = True) -> Any:
        if isinstance(request, MetadataRequest):
            request._allow_auto_topic_creation = False  # noqa: SLF001 - its constructor's argument, given by nobody
        return super().send(request, expect_response=expect_response)


class _Client(AIOKafkaClient):  # type: ignore[misc]  # it has no types
    async def _get_conn(self, *arguments: Any, **options: Any) -> Any:
        connection = await super()._get_conn(*arguments, **options)
        if connection is not None:
            connection.__class__ = _Connection
        return connection


def never_create_topics(client: AIOKafkaClient) -> None:
    """Have the client of an aiokafka producer, consumer or admin client say that no topic may be created by a question.

    Each of them makes its client itself, and each client its connections. Every request goes through `_get_conn`, but
    for the first of all, which names no topic. Brokers before Kafka 0.11 know no such word.
    """
    client.__class__ = _Client
