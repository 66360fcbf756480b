"""An outage of Kafka, as every task of ours that needs it rides it out."""

import asyncio
import logging

from runtime.kafka.writer import KafkaAwayError
from runtime.outage import Outage, Pause


def outage(what: str, log: logging.Logger, pause: Pause = asyncio.sleep) -> Outage:
    """Return what waits while Kafka is away, and passes every other error on; `what` names the task in the log."""
    return Outage(what, log, pause, of="Kafka", passes=_is_away)


def _is_away(error: BaseException) -> bool:
    return isinstance(error, KafkaAwayError)
