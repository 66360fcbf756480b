"""Takes `gateway.requests.v1` into the database, so that a request can be found (contract 2.5)."""

from control.request_keeper import RequestKeeper
from control.topic.follower import TopicFollower
from runtime.database.engines import Database
from runtime.kafka.writer import Kafka
from schemas.monitoring.requests import RequestRecord
from schemas.topics import GATEWAY_REQUESTS


def follower(where: Kafka, database: Database) -> TopicFollower[RequestRecord]:
    """Return what takes it."""
    return TopicFollower(where, database, GATEWAY_REQUESTS, RequestRecord, RequestKeeper(database).keep)
