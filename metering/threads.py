"""The thread that Faust's Kafka consumer lives in: its heartbeats go on whatever the event loop is busy with.

Never keeps the process alive, is never waited for without a bound, and never fails without a word.
"""

import asyncio
import logging
from typing import Any

from faust.transport.drivers import aiokafka as driver
from mode.threads import WorkerThread

FAUST_LOG = logging.getLogger("faust.metering")
"""Where Faust's own classes, made ours, say what they do; as quiet as the rest of Faust."""

_ENDS_S = 5.0

log = logging.getLogger(__name__)


class _Worker(WorkerThread):
    def __init__(self, service: Any, **options: Any) -> None:
        super().__init__(service, **options)
        self.daemon = True

    def run(self) -> None:
        try:
            self.service._start_thread()  # noqa: SLF001 - as its base does
        except Exception as error:  # noqa: BLE001 - the app was told; a thread's own end is nobody's news
            log.info("the consumer's thread ended: %r", error)
        finally:
            self._set_stopped()

    def stop(self) -> None:
        if self.is_stopped.wait(_ENDS_S):
            self.join(_ENDS_S)


class _Thread(driver.AIOKafkaConsumerThread):
    logger = FAUST_LOG
    Worker = _Worker

    def on_crash(self, msg: str, *fmt: Any, **_: Any) -> None:
        log.error("the consumer's thread ended: %s", msg.format(*fmt))


def of(consumer: driver.Consumer, ends_within_s: float) -> driver.AIOKafkaConsumerThread:
    """Make the thread of a consumer; it is not begun yet."""
    thread = _Thread(consumer, loop=consumer.loop, beacon=consumer.beacon)
    thread.shutdown_timeout = ends_within_s
    thread.thread_loop.set_exception_handler(_tell)
    return thread


def _tell(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say what a task of the consumer's own failed with after we had given up on it: an offset's write, say."""
    log.warning("in the consumer's thread: %s: %r", context["message"], context.get("exception"))
