"""When a worker tells the months of its lanes again (counting 5)."""

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

from domain.limit_tree import Threshold
from metering import flow
from metering.flow import Counted
from metering.topic.lanes import Lanes, lane_of
from metering.topic.publisher import KafkaTotals
from runtime.kafka.reader import Reader
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


async def test_months_are_told_at_the_takeover_after_a_change_of_limits_and_once_a_day() -> None:
    clock, told = HandClock(), ListPublisher()
    ledger = DictLedger(clock)
    month = Threshold(LimitType.REQUEST, 9, UsageLimitUnit.MONTH)
    thresholds = DictThresholds(**{f"group-{name}": (month,) for name in "abc"})
    metering = flow.Metering(ledger, told, thresholds, clock)

    async def publish(counted: Sequence[Counted]) -> bool:
        await metering.publish(counted)
        return True

    outage = Outage("metering", logging.getLogger("tests"), pause)
    lanes = Lanes(
        metering,
        ledger,
        cast("KafkaTotals", Topic()),
        publish,
        decisions=cast("Reader", None),
        clock=clock,
        database_outage=outage,
        kafka_outage=outage,
    )

    async def look() -> list[str]:
        await lanes.look(0)
        groups = [part.total.counter.group_id for part in told.parts if part.unit is UsageLimitUnit.MONTH]
        told.parts.clear()
        return groups

    events = [event(number, group_id=f"group-{name}") for number, name in enumerate("abcd", 1)]
    await ledger.apply(batch(events, 1, topic=USAGE_EVENTS, lane=lane_of(0)))
    every = ["group-a", "group-b", "group-c"]
    assert await lanes.take_over(0)
    told.parts.clear()
    assert await look() == every
    assert await look() == []
    thresholds.changed.append("group-b")
    assert await look() == ["group-b"]
    clock.now += timedelta(hours=23)
    assert await look() == []
    clock.now += timedelta(hours=1)
    assert await look() == every
    lanes.leave(0)
    await look()
    assert await look() == every, "a lane that is taken over anew"
