"""When a worker tells the months of its lanes again (counting 5)."""

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from domain.limit_tree import Threshold
from metering import flow
from metering.flow import CountedBatch
from metering.topic.lanes import Lanes, lane_of
from metering.topic.publisher import KafkaTotals
from runtime.kafka.reader import LogReader
from runtime.outage import Outage
from schemas.limits import LimitType, UsageLimitUnit
from schemas.topics import USAGE_EVENTS
from tests.unit.metering.factories import HandClock, batch, event
from tests.unit.metering.fakes import DictLedger, DictThresholds, ListPublisher


class Topic:
    """Stands for the topic of decisions: nobody else writes there."""

    def begin(self, *_: Any) -> None: ...

    def end_of(self, _partition: int) -> int:
        return 1

    def gap(self, _partition: int) -> None: ...

    async def publish_whole(self, *_: Any) -> None: ...


async def pause(_: float) -> None:
    raise AssertionError("nothing is away")


class Scene:
    """Lanes over a ledger of four groups, three of which have a limit on months."""

    def __init__(self) -> None:
        self.clock, self.told = HandClock(), ListPublisher()
        self.ledger = DictLedger(self.clock)
        month = Threshold(LimitType.REQUEST, 9, UsageLimitUnit.MONTH)
        self.thresholds = DictThresholds(**{f"group-{name}": (month,) for name in "abc"})
        self.metering = flow.Metering(self.ledger, self.told, self.thresholds, self.clock)
        outage = Outage("metering", logging.getLogger("tests"), pause)
        self.lanes = Lanes(
            self.metering,
            self.ledger,
            cast("KafkaTotals", Topic()),
            self.publish,
            decisions=cast("LogReader", None),
            clock=self.clock,
            database_outage=outage,
            kafka_outage=outage,
        )

    async def publish(self, counted: Sequence[CountedBatch]) -> bool:
        await self.metering.publish(counted)
        return True

    async def look(self) -> list[str]:
        """Return the groups whose months are told by one look."""
        self.told.parts.clear()
        await self.lanes.look(0)
        return [part.total.counter.group_id for part in self.told.parts if part.unit is UsageLimitUnit.MONTH]


async def test_months_are_told_at_the_takeover_after_a_change_of_limits_and_once_a_day() -> None:
    scene = Scene()
    events = [event(number, group_id=f"group-{name}") for number, name in enumerate("abcd", 1)]
    await scene.ledger.apply(batch(events, 1, topic=USAGE_EVENTS, lane=lane_of(0)))
    every = ["group-a", "group-b", "group-c"]
    assert await scene.lanes.take_over(0)
    assert await scene.look() == every
    assert await scene.look() == []
    scene.thresholds.changed.append("group-b")
    assert await scene.look() == ["group-b"]
    scene.clock.now += timedelta(hours=23)
    assert await scene.look() == []
    scene.clock.now += timedelta(hours=1)
    assert await scene.look() == every
    scene.lanes.leave(0)
    await scene.look()
    assert await scene.look() == every, "a lane that is taken over anew"
