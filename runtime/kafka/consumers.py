"""How every reader of Kafka lets go of its consumer.

Never waits without a bound, and never leaves a connection open: aiokafka 0.14's `stop` raises what its fetching task
died of, before it comes to the connections.
"""

import asyncio
import logging
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CorruptRecordException, UnsupportedCodecError

from runtime.kafka import clients, writer
from runtime.kafka.clients import Kafka

WITHIN_S = 5.0

UNREADABLE = (UnsupportedCodecError, CorruptRecordException)
"""What a consumer raises of records that no later try reads: a codec that is not installed here, a broken batch."""

log = logging.getLogger(__name__)


class UnreadableTopicError(Exception):
    """Records of a topic cannot be read here; the message says of which topic, and why."""

    def __init__(self, name: str, reason: BaseException | None) -> None:
        super().__init__(f"{name} cannot be read on: {type(reason).__name__}: {reason}")


class Stoppable(Protocol):
    """What can be stopped."""

    async def stop(self) -> None:
        """Leave the group and close the connections."""


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # it has no types
    """Closes its connections also where its start was cut off, or its fetching task had died; creates no topic."""

    def __init__(self, where: Kafka, **options: Any) -> None:
        super().__init__(**clients.options(where), **options)
        clients.never_create_topics(self._client)
        writer.let_begin(self._client)

    async def stop(self) -> None:
        """Leave the group and close the connections; raises what the fetching task died of, but after that."""
        try:
            await super().stop()
        except BaseException:
            await self._client.close()
            raise


async def stop(consumer: Stoppable) -> None:
    """Stop it in bounded time, in a task of its own: a stop may end with the end of the tasks that it ends."""
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.wait({stopping}, timeout=WITHIN_S)
    stopping.cancel()
    await asyncio.wait({stopping}, timeout=WITHIN_S)
    if stopping.done() and not stopping.cancelled() and (error := stopping.exception()) is not None:
        log.debug("a consumer failed while it was stopped: %r", error)
