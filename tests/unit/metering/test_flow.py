"""Metering's story: count, decide, publish, and only then return."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from domain.limit_tree import Threshold
from domain.positions import BeyondPositionError, PositionLostError
from domain.sources import EventBatch
from metering import flow, ports
from metering.core import decisions
from metering.core.decisions import Part
from metering.core.sums import Counter, Totals
from schemas.daily import DailyUsage
from schemas.decisions import UsedUp
from schemas.limits import LimitType, UsageLimitUnit
from tests.unit.metering.factories import LANE, NOON, SLUG, SPOOL, HandClock, batch, event
from tests.unit.metering.fakes import DictLedger, DictThresholds, ListPublisher

TWO_REQUESTS = Threshold(LimitType.REQUEST, 2)


class SlowLedger(DictLedger):
    """A ledger after whose commit time passes, during which another worker may move the position."""

    def __init__(self, clock: HandClock, pause: timedelta, *, moved: bool) -> None:
        super().__init__(clock)
        self.asked = 0
        self._hand = clock
        self._pause = pause
        self._moved = moved

    async def apply(self, batch: EventBatch) -> Totals:
        totals = await super().apply(batch)
        self._hand.now += self._pause
        return totals

    async def position(self, topic: str, partition: int) -> int | None:
        self.asked += 1
        position = await super().position(topic, partition)
        return position + 1 if self._moved and position is not None else position


def metering(ledger: ports.Ledger, publisher: ListPublisher, clock: HandClock) -> flow.Metering:
    return flow.Metering(ledger, publisher, DictThresholds(root=(TWO_REQUESTS,)), clock)


async def test_what_a_batch_names_is_counted_judged_and_published() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)

    await counting.process(batch([event(1, charged_groups=("group-a", "root"))]))
    assert [part.used_up for part in publisher.parts] == [(), ()]

    await counting.process(batch([event(2, group_id="group-b", charged_groups=("group-b", "root"))], 2))
    judged = {part.total.counter.group_id: part.used_up for part in publisher.parts[2:]}
    assert judged == {"group-b": (), "root": (UsedUp(type=LimitType.REQUEST, threshold=2),)}
    assert [(part.lane, part.at) for part in publisher.parts[2:]] == [(LANE, 3)] * 2
    assert [usage.group_id for usage in publisher.daily] == ["group-a", "group-b"]


async def test_a_crash_between_commit_and_send_heals_by_redelivery() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = DictLedger(clock)
    publisher.failure = ConnectionError("the broker is away")
    with pytest.raises(ConnectionError):
        await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert publisher.parts == []

    publisher.failure = None
    await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert [(part.total.requests, part.total.version) for part in publisher.parts] == [(1, 1)]
    assert [(usage.requests, usage.version) for usage in publisher.daily] == [(1, 1)]


async def test_a_batch_that_is_refused_publishes_nothing() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)
    await counting.process(batch([event(1)]))
    with pytest.raises(BeyondPositionError):
        await counting.process(batch([event(3)], 3))
    assert len(publisher.parts) == 1


async def test_a_writer_that_was_paused_and_lost_its_partition_publishes_nothing() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = SlowLedger(clock, timedelta(seconds=5, milliseconds=1), moved=True)
    with pytest.raises(PositionLostError):
        await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert (publisher.parts, ledger.asked) == ([], 1)


async def test_a_writer_that_was_paused_and_still_owns_its_partition_publishes() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = SlowLedger(clock, timedelta(seconds=5, milliseconds=1), moved=False)
    await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert (len(publisher.parts), ledger.asked) == (1, 1)


async def test_a_writer_in_time_does_not_ask() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = SlowLedger(clock, timedelta(seconds=5), moved=True)
    await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert (len(publisher.parts), ledger.asked) == (1, 0)


async def test_of_one_counter_only_the_newest_is_published() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)
    counted = [
        await counting.count(batch([event(1, charged_groups=("group-a", "root"))])),
        await counting.count(batch([event(2, group_id="group-b", charged_groups=("group-b", "root"))], 2)),
        await counting.count(batch([event(3)], 3)),
    ]
    assert publisher.parts == []
    await counting.publish(counted)

    versions = {part.total.counter.group_id: (part.total.requests, part.total.version) for part in publisher.parts}
    assert versions == {"group-a": (2, 2), "group-b": (1, 1), "root": (2, 2)}
    assert len(publisher.parts) == len(versions)
    assert sorted((usage.group_id, usage.version) for usage in publisher.daily) == [("group-a", 2), ("group-b", 1)]


async def test_of_equal_versions_the_later_is_told_for_its_offset() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)
    counted = [
        await counting.count(batch([event(1)])),
        await counting.count(batch([event(7, number=1, instance="proxy-b")], 2)),
    ]
    await counting.publish(counted)

    assert [part.at for part in publisher.parts] == [3]


async def test_thresholds_and_daily_usage_are_of_all_lanes_and_parts_are_not() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)
    await counting.process(batch([event(1, group_id="root")]))
    await counting.process(batch([event(1, number=2, group_id="root")], topic="spool-b"))

    assert [(part.total.requests, bool(part.used_up)) for part in publisher.parts] == [(1, False), (1, True)]
    assert [(usage.requests, usage.version) for usage in publisher.daily] == [(1, 1), (2, 2)]


async def test_daily_usage_that_another_lane_changed_meanwhile_is_told_again() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = DictLedger(clock)
    counting = metering(ledger, publisher, clock)
    await ledger.apply(batch([event(1)], topic="spool-b"))
    counted = await counting.count(batch([event(1, number=2)]))
    publish = publisher.publish

    async def overtaken(parts: Sequence[Part], daily: Sequence[DailyUsage]) -> None:
        publisher.publish = publish  # type: ignore[method-assign]
        await ledger.apply(batch([event(2, number=3)], 2, topic="spool-b"))
        await publish(parts, daily)

    publisher.publish = overtaken  # type: ignore[method-assign]
    await counting.publish([counted])

    assert [usage.requests for usage in publisher.daily] == [2, 3]


async def test_publishing_nothing_asks_nobody() -> None:
    clock, publisher = HandClock(), ListPublisher()
    publisher.failure = ConnectionError("must not be asked")
    await metering(DictLedger(clock), publisher, clock).publish([])


async def test_several_batches_of_one_partition_are_late_together_and_still_ours() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)
    counted = [await counting.count(batch([event(1)])), await counting.count(batch([event(2)], 2))]
    clock.advance(minutes=1)
    await counting.publish(counted)

    assert [part.total.requests for part in publisher.parts] == [2]


async def test_a_lost_partition_holds_back_its_own_totals_alone() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = DictLedger(clock)
    counting = metering(ledger, publisher, clock)
    lost = await counting.count(batch([event(1)]))
    ours = await counting.count(batch([event(1, number=2, group_id="group-b")], topic="spool-b", lane="b"))
    clock.advance(minutes=1)
    await ledger.apply(batch([event(2, number=3)], 2))

    with pytest.raises(PositionLostError):
        await counting.publish([lost, ours])
    assert [part.total.counter.group_id for part in publisher.parts] == ["group-b"]


async def test_months_are_told_with_their_days_where_a_limit_asks_for_them() -> None:
    clock, publisher = HandClock(), ListPublisher()
    three = Threshold(LimitType.REQUEST, 3, UsageLimitUnit.MONTH)
    ledger, thresholds = DictLedger(clock), DictThresholds(root=(TWO_REQUESTS, three))
    counting = flow.Metering(ledger, publisher, thresholds, clock)
    first = NOON.replace(day=1)
    charged = ("group-a", "root")
    await counting.process(batch([event(1, charged_groups=charged), event(2, charged_groups=charged)]))
    await counting.process(batch([event(3, charged_groups=charged, timestamp=first + timedelta(days=1))], 3))
    months = [part for part in publisher.parts if part.unit is UsageLimitUnit.MONTH]
    assert {part.total.counter for part in months} == {Counter(first.date(), "root", SLUG)}
    assert [(part.total.requests, part.at, len(part.used_up)) for part in months] == [(2, 3, 0), (3, 4, 1)]
    assert months[1].used_up == (UsedUp(type=LimitType.REQUEST, unit=UsageLimitUnit.MONTH, threshold=3),)
    told = decisions.decision(months[1])
    assert (told.period, told.version) == ("2025-03", 2)
    assert told.reset_at == (first + timedelta(days=31)).replace(day=1, hour=0)

    publisher.parts.clear()
    found, after = await counting.months(SPOOL, 0, LANE, first.date(), None, ("", ""))
    await counting.publish([found])
    assert after is not None
    assert (await counting.months(SPOOL, 0, LANE, first.date(), None, after))[1] is None
    assert publisher.parts == [months[1]]
    nothing, _ = await counting.months(SPOOL, 0, LANE, first.date(), 0, ("", ""))
    assert nothing.totals.months == ()
    thresholds.changed.append("root")
    again, _ = await counting.months(SPOOL, 0, LANE, first.date(), 0, ("", ""))
    assert again.totals.months == (Counter(first.date(), "root", SLUG),)
    mended = await counting.parts(SPOOL, 0, LANE, [months[1].total.counter])
    assert mended.totals.months == (Counter(first.date(), "root", SLUG),)
