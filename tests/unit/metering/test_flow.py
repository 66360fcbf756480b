"""Metering's story: count, decide, publish, and only then return."""

from datetime import timedelta

import pytest

from domain.limit_tree import Threshold
from domain.positions import BeyondPositionError, PositionLostError, Span
from domain.sources import EventBatch
from metering import flow
from metering.core.sums import Totals
from schemas.decisions import UsedUp
from schemas.limits import LimitType
from tests.unit.metering.factories import LANE, SPOOL, HandClock, batch, event
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


def metering(ledger: flow.Ledger, publisher: ListPublisher, clock: HandClock) -> flow.Metering:
    return flow.Metering(ledger, publisher, DictThresholds(root=(TWO_REQUESTS,)), clock)


async def test_what_a_batch_names_is_counted_judged_and_published() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)

    await counting.process(batch([event(1, charged_groups=("group-a", "root"))]))
    assert [decision.used_up for decision in publisher.decisions] == [(), ()]

    await counting.process(batch([event(2, group_id="group-b", charged_groups=("group-b", "root"))], 2))
    judged = {decision.group_id: decision.used_up for decision in publisher.decisions[2:]}
    assert judged == {"group-b": (), "root": (UsedUp(type=LimitType.REQUEST, threshold=2),)}
    assert all(decision.counted == {"proxy-a": 2} for decision in publisher.decisions[2:])
    assert [usage.group_id for usage in publisher.daily] == ["group-a", "group-b"]


async def test_a_crash_between_commit_and_send_heals_by_redelivery() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = DictLedger(clock)
    publisher.failure = ConnectionError("the broker is away")
    with pytest.raises(ConnectionError):
        await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert publisher.decisions == []

    publisher.failure = None
    await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert [(decision.requests, decision.version) for decision in publisher.decisions] == [(1, 1)]
    assert [(usage.requests, usage.version) for usage in publisher.daily] == [(1, 1)]


async def test_a_batch_that_is_refused_publishes_nothing() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)
    await counting.process(batch([event(1)]))
    with pytest.raises(BeyondPositionError):
        await counting.process(batch([event(3)], 3))
    assert len(publisher.decisions) == 1


async def test_a_writer_that_was_paused_and_lost_its_partition_publishes_nothing() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = SlowLedger(clock, timedelta(seconds=5, milliseconds=1), moved=True)
    with pytest.raises(PositionLostError):
        await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert (publisher.decisions, ledger.asked) == ([], 1)


async def test_a_writer_that_was_paused_and_still_owns_its_partition_publishes() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = SlowLedger(clock, timedelta(seconds=5, milliseconds=1), moved=False)
    await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert (len(publisher.decisions), ledger.asked) == (1, 1)


async def test_a_writer_in_time_does_not_ask() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = SlowLedger(clock, timedelta(seconds=5), moved=True)
    await metering(ledger, publisher, clock).process(batch([event(1)]))
    assert (len(publisher.decisions), ledger.asked) == (1, 0)


async def test_of_one_counter_only_the_newest_is_published() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)
    counted = [
        await counting.count(batch([event(1, charged_groups=("group-a", "root"))])),
        await counting.count(batch([event(2, group_id="group-b", charged_groups=("group-b", "root"))], 2)),
        await counting.count(batch([event(3)], 3)),
    ]
    assert publisher.decisions == []
    await counting.publish(counted)

    versions = {decision.group_id: (decision.requests, decision.version) for decision in publisher.decisions}
    assert versions == {"group-a": (2, 2), "group-b": (1, 1), "root": (2, 2)}
    assert len(publisher.decisions) == len(versions)
    assert sorted((usage.group_id, usage.version) for usage in publisher.daily) == [("group-a", 2), ("group-b", 1)]


async def test_of_equal_versions_the_later_is_published_for_its_marks() -> None:
    clock, publisher = HandClock(), ListPublisher()
    counting = metering(DictLedger(clock), publisher, clock)
    counted = [
        await counting.count(batch([event(1)])),
        await counting.count(batch([event(7, number=1, instance="proxy-b")], 2)),
    ]
    await counting.publish(counted)

    assert [decision.counted for decision in publisher.decisions] == [{"proxy-a": 1, "proxy-b": 7}]


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

    assert [decision.requests for decision in publisher.decisions] == [2]


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
    assert [decision.group_id for decision in publisher.decisions] == ["group-b"]


async def test_what_changed_lately_is_published_again_unless_another_worker_has_moved_the_position() -> None:
    clock, publisher = HandClock(), ListPublisher()
    ledger = DictLedger(clock)
    counting = metering(ledger, publisher, clock)
    await ledger.apply(batch([event(1)]))
    span = Span(clock() - timedelta(minutes=10), clock())

    counted, reached = await counting.changed(SPOOL, 0, LANE, span)
    await counting.publish([counted])
    assert reached == span.through
    assert [decision.requests for decision in publisher.decisions] == [1]

    late, _ = await counting.changed(SPOOL, 0, LANE, span)
    clock.advance(seconds=6)
    await ledger.apply(batch([event(2)], 2))
    with pytest.raises(PositionLostError):
        await counting.publish([late])
    assert len(publisher.decisions) == 1
