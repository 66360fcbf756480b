"""Tells `gateway.requests.v1` of the requests that were refused or failed: never before a usage event (contract 4).

What is taken of the request log waits until Kafka has every event that was spooled by then. While Kafka is away it
stays, and the log drops its oldest.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from proxy.topic.publisher import Mark
from runtime import loops
from runtime.kafka import outages
from runtime.kafka.writer import KafkaRecord, PlainRecord, RecordTooLargeError, cloud_event
from runtime.outage import Pause
from schemas.monitoring.requests import RequestRecord
from schemas.topics import GATEWAY_REQUESTS

EVERY_S = 1.0

log = logging.getLogger(__name__)


class RecordWriter(Protocol):
    """Where records go: `runtime.kafka.writer.Writer`."""

    async def write(self, topic: str, records: Sequence[PlainRecord], within_s: float = ...) -> None:
        """Return when the broker has all of them. Raise KafkaAwayError, RecordTooLargeError."""


class RequestPublisher:
    """Publishes what `take` gives; `marks` says how far the spools are published."""

    def __init__(
        self,
        take: Callable[[], Sequence[RequestRecord]],
        marks: Callable[[], Sequence[Mark]],
        writer: RecordWriter,
        pause: Pause | None = None,
    ) -> None:
        self._take = take
        self._marks = marks
        self._writer = writer
        self._held: Sequence[RequestRecord] = ()
        self._behind: Mapping[str, int] = {}
        """By instance the last event that was spooled when what is held was taken."""
        self._outage = outages.outage("the publisher of requests", log, *([] if pause is None else [pause]))

    async def run(self) -> None:
        """Publish for as long as the process runs."""
        await self._outage.repeat(EVERY_S, self.step)

    async def step(self) -> None:
        """Send what is held once the events before it are published; then hold what there is. Raise KafkaAwayError."""
        if self._held and self._events_are_published():
            try:
                await self._writer.write(GATEWAY_REQUESTS, [_message(record) for record in self._held])
            except RecordTooLargeError as error:  # the topic's own bound was lowered
                log.warning("%d requests cannot be told of: %s", len(self._held), error)
            loops.turned(len(self._held), rest_s=EVERY_S)
            self._held = ()
        if not self._held:
            self._held = self._take()
            self._behind = {mark.instance: mark.last_sequence for mark in self._marks()} if self._held else {}

    def _events_are_published(self) -> bool:
        return all(mark.acknowledged_through >= self._behind.get(mark.instance, 0) for mark in self._marks())


def _message(record: RequestRecord) -> KafkaRecord:
    headers = cloud_event(GATEWAY_REQUESTS, record.request_id, record.instance, record.at)
    return KafkaRecord(record.request_id.encode(), record.model_dump_json().encode(), headers)
