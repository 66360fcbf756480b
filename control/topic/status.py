"""Takes `gateway.status.v1` into the database, so that people see how all processes do (contract 6)."""

from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from control.store.monitoring import status
from control.topic.follower import TopicFollower
from runtime.database.engines import Database
from runtime.kafka.writer import Kafka
from schemas.monitoring.status import ProcessStatus
from schemas.topics import GATEWAY_STATUS


def follower(where: Kafka, database: Database) -> TopicFollower[ProcessStatus]:
    """Return what takes it."""

    async def keep(records: Sequence[ProcessStatus], move: Callable[[Connection], bool]) -> None:
        await database.write(lambda connection: status.keep(connection, records) if move(connection) else None)

    return TopicFollower(where, database, GATEWAY_STATUS, ProcessStatus, keep)
