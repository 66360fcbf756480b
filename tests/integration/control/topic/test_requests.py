"""Control takes the topic of requests into its database, once, whoever else does so too."""

from control.store import requests
from control.topic import requests as topic
from runtime.database.engines import Database
from runtime.kafka.writer import Kafka, KafkaRecord, Writer
from schemas.topics import GATEWAY_REQUESTS
from tests.contracts.control.test_requests import record
from tests.support import records


async def test_what_is_told_is_found_and_taken_once(kafka: Kafka, database: Database) -> None:
    await records.make_topics(kafka, partitions=2, only=[GATEWAY_REQUESTS])
    told, later = [record(age) for age in range(9)], record(0)
    writer = Writer(kafka, "a test")
    first, second = (topic.follower(kafka, database) for _ in range(2))
    try:
        messages = [KafkaRecord(each.request_id.encode(), each.model_dump_json().encode()) for each in told]
        await writer.write(GATEWAY_REQUESTS, [*messages, KafkaRecord(b"broken", b"{"), KafkaRecord(b"gone", None)])
        await first.step()
        found = database.read_now(lambda view: [requests.find(view, each.request_id) for each in told])
        assert found == told
        taken = database.read_now(lambda view: requests.taken(view, GATEWAY_REQUESTS))
        assert sum(taken.values()) == len(told) + 2
        await writer.write(GATEWAY_REQUESTS, [KafkaRecord(later.request_id.encode(), later.model_dump_json().encode())])
        await second.step()
        await first.step()
        assert database.read_now(lambda view: requests.find(view, later.request_id)) == later
        taken = database.read_now(lambda view: requests.taken(view, GATEWAY_REQUESTS))
        assert sum(taken.values()) == len(told) + 3
    finally:
        for each in (first, second):
            await each.close()
        await writer.close()
