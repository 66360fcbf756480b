"""When a worker tells what waits in its lanes, `whole`, daily usage and months (counting 5)."""

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
from runtime.kafka.writer import partition_of
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

    def __init__(self) -> None:
        self.wholes: list[int] = []
        self.spreads: list[tuple[str, int]] = []

    async def lanes(self) -> int:
        return 4

    async def publish_spread(self, _partition: int, tree: str, lanes: int) -> None:
        self.spreads.append((tree, lanes))

    async def publish_whole(self, _partition: int, at: int) -> None:
        self.wholes.append(at)


async def pause(_: float) -> None:
    raise AssertionError("nothing is away")


class Scene:
    """Lanes over a ledger of four groups, three of which have a limit on months."""

    def __init__(self) -> None:
        self.clock, self.told, self.topic = HandClock(), ListPublisher(), Topic()
        self.ledger = DictLedger(self.clock)
        month = Threshold(LimitType.REQUEST, 9, UsageLimitUnit.MONTH)
        self.thresholds = DictThresholds(**{f"group-{name}": (month,) for name in "abc"})
        self.metering = flow.Metering(self.ledger, self.told, self.thresholds, self.clock)
        outage = Outage("metering", logging.getLogger("tests"), pause)
        self.lanes = Lanes(
            self.metering,
            self.ledger,
            cast("KafkaTotals", self.topic),
            self.publish,
            decisions=cast("LogReader", None),
            clock=self.clock,
            database_outage=outage,
            kafka_outage=outage,
        )

    async def publish(self, counted: Sequence[CountedBatch]) -> bool:
        self.lanes.told(await self.metering.publish(counted))
        return True

    async def use(self, group: str, requests: int = 1) -> list[tuple[str, int]]:
        """Count requests as the worker does; return what is told of days at once, as (group, requests)."""
        self.told.parts.clear()
        at = await self.ledger.position(USAGE_EVENTS, 0) or 0
        events = [event(at + number + 1, group_id=group) for number in range(requests)]
        counted = await self.metering.count(batch(events, at, topic=USAGE_EVENTS, lane=lane_of(0)))
        due = self.lanes.named([counted])
        assert not due or await self.publish(due)
        self.lanes.moved(0, counted.totals.position)
        return self.days_told()

    async def looked(self) -> list[tuple[str, int]]:
        """Return what of days is told by one look."""
        self.told.parts.clear()
        await self.lanes.look(0)
        return self.days_told()

    def days_told(self) -> list[tuple[str, int]]:
        days = [part for part in self.told.parts if part.unit is UsageLimitUnit.DAY]
        return [(part.total.counter.group_id, part.total.requests) for part in days]

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


async def test_what_waits_is_told_before_whole_which_comes_sooner_where_nothing_waits() -> None:
    scene = Scene()
    assert await scene.lanes.take_over(0)
    assert await scene.use("group-d") == [("group-d", 1)]
    scene.clock.advance(seconds=4)
    assert await scene.looked() == []
    scene.clock.advance(seconds=1)
    assert await scene.looked() == []
    assert scene.topic.wholes == [0, 1], "5 s after the last"
    assert await scene.use("group-d", 5) == []
    scene.clock.advance(seconds=24)
    assert await scene.looked() == []
    assert scene.topic.wholes == [0, 1]
    scene.clock.advance(seconds=6)
    assert await scene.looked() == [("group-d", 6)]
    assert scene.topic.wholes == [0, 1, 6], "30 s after the last, and all below it was told"
    progress = await scene.ledger.progress(USAGE_EVENTS, 0)
    assert progress is not None
    assert progress.told_offset == 6


async def test_near_a_limit_each_request_is_told() -> None:
    scene = Scene()
    assert await scene.lanes.take_over(0)
    for number in range(1, 4):
        assert await scene.use("group-a") == [("group-a", number)], "9 a month"


async def test_a_change_of_limits_is_told_at_the_next_look() -> None:
    scene = Scene()
    assert await scene.lanes.take_over(0)
    await scene.use("group-d")
    assert await scene.use("group-d") == []
    assert await scene.looked() == []
    scene.thresholds.changes += 1
    assert await scene.looked() == [], "another group's"
    scene.thresholds.set("group-d", Threshold(LimitType.REQUEST, 5))
    assert await scene.looked() == [("group-d", 2)]


async def test_what_another_has_counted_meanwhile_is_left_to_that_one() -> None:
    scene = Scene()
    assert await scene.lanes.take_over(0)
    await scene.use("group-d")
    await scene.use("group-d")
    position = await scene.ledger.position(USAGE_EVENTS, 0) or 0
    await scene.ledger.apply(batch([event(9, group_id="group-d")], position, topic=USAGE_EVENTS, lane=lane_of(0)))
    assert not await scene.lanes.tell_whole(0)
    assert scene.topic.wholes == [0]
    assert await scene.looked() == [("group-d", 3)], "it is taken over anew"


async def test_daily_usage_is_told_once_a_look_and_again_where_another_lane_moves_it() -> None:
    scene = Scene()
    assert await scene.lanes.take_over(0)
    await scene.use("group-d", 2)
    await scene.use("group-d", 3)
    assert scene.told.daily == []
    await scene.lanes.tell_daily([0])
    assert [usage.requests for usage in scene.told.daily] == [5]
    await scene.lanes.tell_daily([0])
    assert len(scene.told.daily) == 1

    await scene.ledger.apply(batch([event(50, group_id="group-d")], topic="other"))
    await scene.use("group-d")
    scene.told.meanwhile = scene.ledger.apply(batch([event(51, group_id="group-d")], 2, topic="other"))
    await scene.lanes.tell_daily([0])
    assert [usage.requests for usage in scene.told.daily] == [5, 7, 8], "the other lane added one while it was told"


async def test_a_busy_trees_lanes_are_kept_and_told_and_told_again_by_who_takes_the_lane_over() -> None:
    scene = Scene()
    tree = next(name for name in "abcdefgh" if partition_of(name.encode(), 4) == 0)
    scene.ledger.kept_spreads["another lane's"] = 2
    assert await scene.lanes.take_over(0)
    await scene.use(tree, 30_000)
    scene.clock.advance(seconds=10)
    await scene.looked()
    assert scene.topic.spreads == [(tree, 2)]
    assert scene.ledger.kept_spreads[tree] == 2
    scene.clock.advance(hours=12)
    await scene.looked()
    assert scene.topic.spreads == [(tree, 2)] * 2
    scene.lanes.leave(0)
    await scene.looked()
    await scene.looked()
    assert scene.topic.spreads == [(tree, 2)] * 3
