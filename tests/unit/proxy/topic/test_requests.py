"""Requests are told of after every event that was spooled before, and none is lost while Kafka is away."""

from collections.abc import Sequence

import pytest

from proxy.topic.publisher import Mark
from proxy.topic.requests import RequestPublisher
from runtime.kafka.writer import KafkaAwayError, PlainRecord, RecordTooLargeError
from schemas.monitoring.requests import RequestEnd, RequestRecord
from schemas.topics import GATEWAY_REQUESTS
from tests.unit.proxy import kit


def record(name: str) -> RequestRecord:
    fields = {"request_id": name, "at": kit.NOW, "ended": RequestEnd.REFUSED, "status": 429, "reason": "x"}
    return RequestRecord(**fields, instance="one")


class Scene:
    """A request log, spools and a writer."""

    def __init__(self) -> None:
        self.waiting: list[RequestRecord] = []
        self.marks: list[Mark] = [Mark("old", 5, 5, None), Mark("one", 2, 2, None)]
        self.failure: Exception | None = None
        self.written: list[str] = []
        self.publisher = RequestPublisher(self.take, lambda: self.marks, self)

    def take(self) -> list[RequestRecord]:
        taken, self.waiting = self.waiting, []
        return taken

    async def write(self, topic: str, records: Sequence[PlainRecord], within_s: float = 10) -> None:
        assert topic == GATEWAY_REQUESTS
        if self.failure is not None:
            raise self.failure
        self.written += [key.decode() for key, _, _ in records]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_what_is_taken_waits_for_the_events_that_were_spooled_by_then(scene: Scene) -> None:
    scene.marks[1] = Mark("one", 2, 9, None)
    scene.waiting = [record("first")]
    await scene.publisher.step()
    scene.waiting = [record("second")]
    await scene.publisher.step()
    assert scene.written == []
    assert [each.request_id for each in scene.waiting] == ["second"], "the log keeps what is not taken, and its bound"
    scene.marks[1] = Mark("one", 9, 12, None)  # later events do not hold it up
    await scene.publisher.step()
    assert scene.written == ["first"]
    await scene.publisher.step()
    assert scene.written == ["first"]
    scene.marks[1] = Mark("one", 12, 12, None)
    await scene.publisher.step()
    assert scene.written == ["first", "second"]


async def test_what_kafka_did_not_take_is_sent_again(scene: Scene) -> None:
    scene.waiting = [record("first"), record("second")]
    await scene.publisher.step()
    scene.failure = KafkaAwayError("away")
    with pytest.raises(KafkaAwayError):
        await scene.publisher.step()
    scene.failure = None
    await scene.publisher.step()
    assert scene.written == ["first", "second"]


async def test_what_kafka_will_never_take_ends_nothing(scene: Scene) -> None:
    scene.waiting = [record("first")]
    await scene.publisher.step()
    scene.failure = RecordTooLargeError("too large")
    await scene.publisher.step()
    scene.failure, scene.waiting = None, [record("second")]
    for _ in range(2):
        await scene.publisher.step()
    assert scene.written == ["second"]
