"""Takes `gateway.requests.v1` into the database, so that a request can be found (contract 2.5).

Any number of processes may run it: what is kept and how far it was taken change in one transaction, which one wins.
"""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from pydantic import ValidationError
from sqlalchemy import Connection

from control.request_keeper import RequestKeeper
from control.store import requests
from runtime import loops
from runtime.database.engines import Database
from runtime.kafka.reader import LogBounds, LogReader
from runtime.kafka.writer import Kafka, KafkaAwayError
from runtime.outage import Outage, is_transient
from schemas.monitoring.requests import RequestRecord
from schemas.topics import GATEWAY_REQUESTS

_EVERY_S = 1.0

log = logging.getLogger(__name__)


class _Record(Protocol):
    """What a follower reads of aiokafka's ConsumerRecord."""

    partition: int
    offset: int
    value: bytes | None


class RequestFollower:
    """Follows the topic for one process of control."""

    def __init__(self, where: Kafka, database: Database) -> None:
        self._reader = LogReader(where, GATEWAY_REQUESTS)
        self._database = database
        self._keeper = RequestKeeper(database)

    async def run(self) -> None:
        """Take what there is once a second, for as long as the process runs."""
        outage = Outage("the reader of requests", log, of="Kafka or the database", passes=_passes)
        try:
            await outage.repeat(_EVERY_S, self.step)
        finally:
            await self._reader.close()

    async def step(self) -> None:
        """Take what there is now. Raise KafkaAwayError."""
        bounds = await self._reader.bounds()
        taken = dict(await self._database.read(partial(requests.taken, topic=GATEWAY_REQUESTS)))
        left = {one: LogBounds(_begin(log, taken.get(one)), log.end) for one, log in bounds.items()}
        async for some in self._reader.until(left):
            await self._keep(some, taken)

    async def _keep(self, some: Sequence[_Record], taken: dict[int, int]) -> None:
        """Keep records of one partition, if nobody else has taken them."""
        if not some:
            return
        partition, end = some[0].partition, some[-1].offset + 1
        move = partial(_move, partition=partition, at=taken.get(partition), end=end)
        await self._keeper.keep([record for each in some if (record := _read(each)) is not None], move)
        taken[partition] = end
        loops.turned(len(some), rest_s=_EVERY_S)


def _begin(log_: LogBounds, taken: int | None) -> int:
    """Return where to go on: at the log's beginning where it is shorter, or made anew."""
    return taken if taken is not None and log_.begin <= taken <= log_.end else log_.begin


def _move(connection: Connection, partition: int, at: int | None, end: int) -> bool:
    return requests.move(connection, GATEWAY_REQUESTS, partition, at, end)


def _read(record: Any) -> RequestRecord | None:
    try:
        return RequestRecord.model_validate_json(record.value or b"")
    except ValidationError:
        place = f"partition {record.partition}, offset {record.offset}"
        log.warning("a record of %s cannot be read: %s", GATEWAY_REQUESTS, place)
        return None


def _passes(error: BaseException) -> bool:
    return isinstance(error, KafkaAwayError) or is_transient(error)
