"""A process tells of itself every ten seconds and of each ended minute once, also after nobody took it for a while."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from runtime.kafka.writer import KafkaAwayError, RecordTooLargeError
from runtime.loops import Loops
from runtime.telemetry.metrics import Telemetry
from schemas.monitoring.status import CallCounts, ProcessStatus, Stage
from tests.support.statuses import calls
from tollgate.roles.status import EVERY_S, MOST_MINUTES, StatusReporter

BEGUN = datetime(2026, 11, 29, 12, 0, 5, tzinfo=UTC)


class Scene:
    """A process at a time of its own."""

    def __init__(self) -> None:
        self.now = BEGUN
        self.lag = 0.0
        self.problem: str | None = None
        self.counted = 0
        self.failure: Exception | None = None
        self.told: list[ProcessStatus] = []
        self.rests: list[float] = []
        self.loops = Loops()
        telemetry = Telemetry()
        telemetry.gauge("tollgate_metering_lag_events", "x", lambda: {"a": self.lag, "b": 1.0}, "partition")
        self.reporter = StatusReporter(
            *("proxy", self.tell),
            clock=lambda: self.now,
            known=self.loops,
            telemetry=telemetry,
            checks={"spool": lambda: self.problem},
            calls=self.calls,
            pause=self.pause,
        )

    async def tell(self, status: ProcessStatus) -> None:
        if self.failure is not None:
            raise self.failure
        self.told.append(status)

    def calls(self) -> Sequence[CallCounts]:
        counted, self.counted = self.counted, 0
        return [calls("w", complete=counted)] if counted else []

    async def pause(self, rest_s: float) -> None:
        if len(self.rests) == 2:
            raise StopAsyncIteration
        self.rests.append(rest_s)
        self.now += timedelta(seconds=rest_s)

    async def at(self, seconds: float) -> None:
        self.now = BEGUN + timedelta(seconds=seconds)
        await self.reporter.step()

    def minutes(self) -> list[tuple[int, int]]:
        told = [one.minute for one in self.told if one.minute is not None]
        return [(one.start.minute, sum(sum(c.outcomes.values()) for c in one.calls)) for one in told]


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_it_rests_until_shortly_after_the_next_full_ten_seconds(scene: Scene) -> None:
    with pytest.raises(StopAsyncIteration):
        await scene.reporter.run()
    assert scene.rests == pytest.approx([5.05, EVERY_S])
    assert [one.at.second for one in scene.told] == [10, 20]


async def test_each_tick_tells_of_now_and_an_ended_minute_is_told_once(scene: Scene) -> None:
    scene.loops.begin("the publisher").did = 4
    scene.problem, scene.lag, scene.counted = "full", 7, 3
    await scene.at(5)
    [first] = scene.told
    assert (first.problem, first.lags, first.minute) == ("spool: full", {Stage.COUNTING: 8.0}, None)
    assert [(one.name, one.did, one.is_still) for one in first.loops] == [("the publisher", 4, False)]
    scene.problem, scene.lag = None, 2
    await scene.at(45)
    await scene.at(55.05)
    scene.counted = 2
    await scene.at(65)
    assert scene.minutes() == [(0, 3)]
    [minute] = [one.minute for one in scene.told if one.minute is not None]
    assert minute.lags == {Stage.COUNTING: 8.0}, "the greatest of the minute"
    assert [one.problem for one in scene.told[1:]] == [None] * 3
    assert len({one.process for one in scene.told}) == 1
    await scene.at(115.05)
    assert scene.minutes() == [(0, 3), (1, 2)]


async def test_minutes_wait_while_nobody_takes_them_the_oldest_give_way(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.failure = KafkaAwayError("away")
    with caplog.at_level(logging.WARNING):
        for number in range(MOST_MINUTES + 2):
            scene.counted = number + 1
            await scene.at(60 * (number + 1))
    assert [record.getMessage() for record in caplog.records] == ["the status of this process is not taken: away"]
    scene.failure = None
    await scene.at(60 * (MOST_MINUTES + 2) + 10)
    assert scene.minutes() == [(number, number + 1) for number in range(2, MOST_MINUTES + 2)]


async def test_a_minute_that_kafka_never_takes_is_left_out(scene: Scene) -> None:
    scene.failure, scene.counted = RecordTooLargeError("too large"), 1
    await scene.at(60)
    scene.failure = None
    await scene.at(70)
    assert scene.minutes() == []
    scene.counted = 2
    await scene.at(120)
    assert scene.minutes() == [(1, 2)]


async def test_what_does_not_pass_by_itself_is_raised(scene: Scene) -> None:
    scene.failure = ValueError("a mistake")
    with pytest.raises(ValueError, match="a mistake"):
        await scene.at(5)
