"""The thread that Faust's Kafka consumer lives in: its heartbeats go on whatever the event loop is busy with.

Never keeps the process alive, and is never waited for without a bound.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata
from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials
from faust.transport.drivers import aiokafka as driver
from faust.types.auth import CredentialsT
from mode.threads import WorkerThread

from runtime.kafka import clients
from runtime.kafka.clients import Kafka

FAUST_LOG = logging.getLogger("faust.metering")
"""Where Faust's own classes, made ours, say what they do; as quiet as the rest of Faust."""

_ENDS_S = 5.0
_COMMIT_WITHIN_S = 5.0

log = logging.getLogger(__name__)


class _Worker(WorkerThread):
    def __init__(self, service: Any, **options: Any) -> None:
        super().__init__(service, **options)
        self.daemon = True

    def run(self) -> None:
        try:
            self.service._start_thread()  # noqa: SLF001 - as its base does
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the app was told; aiokafka raises either
            log.info("the consumer's thread ended: %r", error)
        finally:
            self._set_stopped()

    def stop(self) -> None:
        if self.is_stopped.wait(_ENDS_S):
            self.join(_ENDS_S)


class Thread(driver.AIOKafkaConsumerThread):
    """The thread of one consumer."""

    logger = FAUST_LOG
    Worker = _Worker

    def on_crash(self, msg: str, *fmt: Any, **_: Any) -> None:
        """Say what it failed with; the app is told by Faust."""
        log.error("the consumer's thread ended: %s", msg.format(*fmt))

    def _create_consumer(self, loop: asyncio.AbstractEventLoop) -> AIOKafkaConsumer:
        consumer = super()._create_consumer(loop)
        clients.never_create_topics(consumer._client)  # noqa: SLF001 - Faust makes it, and gives it to nobody
        return consumer

    async def on_thread_stop(self) -> None:
        """Leave the group, and close the connections also where that failed."""
        try:
            await super().on_thread_stop()
        finally:
            if self._consumer is not None:
                await self._consumer._client.close()  # noqa: SLF001 - its own `stop` comes to it last

    async def write_offsets(self, offsets: Mapping[TopicPartition, int]) -> bool:
        """Write the group's offsets, in the thread's loop and within 5 s; False, and nothing sent, while it rebalances.

        A write that waits behind a request to join is answered after the group has moved on, with an error that makes
        aiokafka forget its new membership as well: it would join again and again, or stay out for good. And aiokafka's
        own `commit` sends it again after an outage, whoever has given up on it meanwhile. Raise KafkaError,
        TimeoutError.
        """
        coordinator = self._ensure_consumer()._coordinator  # noqa: SLF001 - nothing public tells of a rebalance
        rebalances = coordinator._rejoin_needed_fut.done() or coordinator._performed_join_prepare  # noqa: SLF001
        if rebalances or coordinator.coordinator_id is None:
            return False
        async with asyncio.timeout(_COMMIT_WITHIN_S):
            written = {place: OffsetAndMetadata(offset, "") for place, offset in offsets.items()}
            await coordinator._do_commit_offsets(None, written)  # noqa: SLF001
        return True


def of(consumer: driver.Consumer, ends_within_s: float) -> Thread:
    """Make the thread of a consumer; it is not begun yet."""
    thread = Thread(consumer, loop=consumer.loop, beacon=consumer.beacon)
    thread.shutdown_timeout = ends_within_s
    thread.thread_loop.set_exception_handler(_tell)
    return thread


def credentials(where: Kafka) -> CredentialsT | None:
    """Return what Faust gives its consumer beside the brokers' addresses; None: nothing. Raise SecurityError."""
    given = clients.options(where)
    tls = given.get("ssl_context")
    if tokens := given.get("sasl_oauth_token_provider"):
        return OAuthCredentials(oauth_cb=tokens, ssl_context=tls)
    if mechanism := given.get("sasl_mechanism"):
        username, password = given["sasl_plain_username"], given["sasl_plain_password"]
        return SASLCredentials(username=username, password=password, mechanism=mechanism, ssl_context=tls)
    return None if tls is None else SSLCredentials(tls)


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what a task of the consumer's own failed with after we had given up on it: an offset's write, say."""
    log.warning("in the consumer's thread: %s: %r", context["message"], context.get("exception"))
