"""What is in flight near a limit, told and heard over its topic."""

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any, cast

import pytest

from proxy.limits.days import DayCounters, DayLimit, DayRefusal
from proxy.limits.in_flight import NEAR
from proxy.limits.reservations import DayReservation
from proxy.topic.in_flight import InFlightFeed, InFlightTeller
from runtime.kafka.feed import FeedRecord
from runtime.kafka.writer import Kafka, KafkaAwayError, KafkaRecord, PlainRecord, Writer
from schemas.decisions import Whole
from schemas.limits import LimitType
from schemas.topics import LIMITS_IN_FLIGHT

DAY = date(2025, 3, 1)
LIMIT = DayLimit(LimitType.REQUEST, 10, "g", "g")


class ListWriter:
    def __init__(self) -> None:
        self.written: list[KafkaRecord] = []
        self.is_away = False

    async def write(self, topic: str, records: Sequence[PlainRecord], within_s: float) -> None:
        if self.is_away:
            raise KafkaAwayError("nobody there")
        assert topic == LIMITS_IN_FLIGHT
        self.written += [cast("KafkaRecord", record) for record in records]


class Scene:
    """A proxy that tells, and one that hears."""

    def __init__(self) -> None:
        self.writer = ListWriter()
        self.now_s = 100.0
        self.teller_days, self.hearer_days = days("one"), days("two")
        self.teller = InFlightTeller(
            cast("Writer", self.writer),
            self.teller_days,
            "one",
            lambda: datetime(2025, 3, 1, 12, tzinfo=UTC),
            lanes=[0, 1],
            steady=lambda: self.now_s,
        )
        self.feed = InFlightFeed(Kafka("nowhere:1"), self.hearer_days, steady=lambda: self.now_s)

    def hear(self) -> None:
        self.feed._take([FeedRecord(record.key, record.value, record.headers) for record in self.writer.written])
        self.writer.written.clear()


def days(instance: str) -> DayCounters:
    made = DayCounters(instance)
    made.use_lanes(range(1), lambda *_: 0)
    made.take_whole(0, 0)
    made.tell_others_from(NEAR)
    return made


def reserve(counters: DayCounters) -> DayReservation | DayRefusal:
    return counters.reserve(DAY, "lab/model", ("g",), [LIMIT], 7, 3)


async def test_what_one_proxy_has_in_flight_binds_the_other_until_it_ends() -> None:
    scene = Scene()
    taken = [reserve(scene.teller_days) for _ in range(10)]
    await scene.teller.turn()
    (record,) = scene.writer.written
    assert record.key == b"g/lab/model/2025-03-01/one"
    value: dict[str, Any] = json.loads(record.value or b"")
    assert value == {
        "groupId": "g",
        "modelSlug": "lab/model",
        "day": "2025-03-01",
        "instance": "one",
        "requests": 10,
        "tokens": 70,
        "inputTokens": 40,
        "outputTokens": 30,
        "cost": 0,
    }
    assert dict(record.headers)["ce_type"] == b"tollgate.limits.inflight.v1"
    scene.hear()
    refused = reserve(scene.hearer_days)
    assert isinstance(refused, DayRefusal)
    assert refused.rests_on_reservations
    for one in taken:
        assert isinstance(one, DayReservation)
        scene.teller_days.release(one)
    await scene.teller.turn()
    scene.hear()
    assert isinstance(reserve(scene.hearer_days), DayReservation)
    assert scene.teller.told == 2


async def test_a_proxy_that_says_no_more_binds_nobody_for_longer_than_two_seconds() -> None:
    scene = Scene()
    for _ in range(10):
        reserve(scene.teller_days)
    await scene.teller.turn()
    scene.hear()
    hearer = InFlightTeller(
        cast("Writer", scene.writer),
        scene.hearer_days,
        "two",
        lambda: datetime(2025, 3, 1, 12, tzinfo=UTC),
        lanes=[0],
        steady=lambda: scene.now_s,
    )
    scene.now_s += 1.9
    await hearer.turn()
    assert isinstance(reserve(scene.hearer_days), DayRefusal)
    scene.now_s += 0.1
    await hearer.turn()
    assert isinstance(reserve(scene.hearer_days), DayReservation)


async def test_far_from_the_limit_it_is_told_once_a_lanes_owner_is_silent_for_a_minute() -> None:
    scene = Scene()
    scene.now_s += 60
    await scene.teller.turn()
    reserve(scene.teller_days)
    await scene.teller.turn()
    assert scene.writer.written == []
    scene.teller.hear([Whole(lane=0, at=5)])
    scene.now_s += 0.1  # the other lane's is silent
    await scene.teller.turn()
    reserve(scene.teller_days)
    await scene.teller.turn()
    assert len(scene.writer.written) == 1


async def test_while_kafka_is_away_requests_go_on_and_it_is_told_again_within_a_second() -> None:
    scene = Scene()
    for _ in range(10):
        reserve(scene.teller_days)
    scene.writer.is_away = True
    await scene.teller.turn()
    scene.writer.is_away = False
    scene.now_s += 1
    await scene.teller.turn()
    assert (len(scene.writer.written), scene.teller.told) == (1, 1)


def test_a_record_that_cannot_be_read_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.feed._take([FeedRecord(b"k", b"{"), FeedRecord(b"k", None)])
    assert "limits.inflight.v1: skipped 1 record(s)" in caplog.text
