"""Takes a topic into control's database.

Any number of processes may run it: what is kept and how far it was taken change in one transaction, which one wins.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from pydantic import ValidationError
from sqlalchemy import Connection

from control.store import requests
from runtime import loops
from runtime.database.engines import Database
from runtime.kafka.reader import LogBounds, LogReader
from runtime.kafka.writer import Kafka, KafkaAwayError
from runtime.outage import Outage, is_transient
from schemas.base import InternalRecord

_EVERY_S = 1.0

log = logging.getLogger(__name__)

Contract = TypeVar("Contract", bound=InternalRecord)

Keep = Callable[[Sequence[Contract], Callable[[Connection], bool]], Awaitable[None]]
"""Keep records in one transaction, unless its second argument, run first in that transaction, returns False."""


class _Record(Protocol):
    """What a follower reads of aiokafka's ConsumerRecord."""

    partition: int
    offset: int
    value: bytes | None


class TopicFollower(Generic[Contract]):
    """Follows one topic for one process of control."""

    def __init__(
        self, where: Kafka, database: Database, topic: str, contract: type[Contract], keep: Keep[Contract]
    ) -> None:
        self._reader = LogReader(where, topic)
        self._database = database
        self._topic = topic
        self._contract = contract
        self._keep = keep

    async def run(self) -> None:
        """Take what there is once a second, for as long as the process runs."""
        outage = Outage(f"the reader of {self._topic}", log, of="Kafka or the database", passes=_passes)
        try:
            await outage.repeat(_EVERY_S, self.step)
        finally:
            await self.close()

    async def step(self) -> None:
        """Take what there is now. Raise KafkaAwayError."""
        bounds = await self._reader.bounds()
        taken = dict(await self._database.read(partial(requests.taken, topic=self._topic)))
        left = {one: LogBounds(_begin(log, taken.get(one)), log.end) for one, log in bounds.items()}
        async for some in self._reader.until(left):
            await self._take(some, taken)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._reader.close()

    async def _take(self, some: Sequence[_Record], taken: dict[int, int]) -> None:
        """Keep records of one partition, if nobody else has taken them."""
        if not some:
            return
        partition, end = some[0].partition, some[-1].offset + 1
        move = partial(requests.move, topic=self._topic, partition=partition, at=taken.get(partition), next_offset=end)
        await self._keep([record for each in some if (record := self._read(each)) is not None], move)
        taken[partition] = end
        loops.turned(len(some), rest_s=_EVERY_S)

    def _read(self, record: Any) -> Contract | None:
        try:
            return self._contract.model_validate_json(record.value or b"")
        except ValidationError:
            place = f"partition {record.partition}, offset {record.offset}"
            log.warning("a record of %s cannot be read: %s", self._topic, place)
            return None


def _begin(log_: LogBounds, taken: int | None) -> int:
    """Return where to go on: at the log's beginning where it is shorter, or made anew."""
    return taken if taken is not None and log_.begin <= taken <= log_.end else log_.begin


def _passes(error: BaseException) -> bool:
    return isinstance(error, KafkaAwayError) or is_transient(error)
