"""What is published again, in which steps, and what is noted of it."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from domain.positions import Progress
from metering import flow
from metering.flow import Counted
from metering.topic.batches import lane_of
from metering.topic.republisher import Republishing
from runtime.outage import Outage
from schemas.topics import USAGE_EVENTS
from tests.unit.metering.factories import HandClock, batch, event
from tests.unit.metering.fakes import DictLedger, DictThresholds, ListPublisher


class Worker:
    """A worker's parts, and what they publish; `loses_at` says at which page another has moved the position."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.ledger = DictLedger(self.clock)
        self.turn = asyncio.Lock()
        self.pages: list[list[str]] = []
        self.loses_at: int | None = None
        metering = flow.Metering(self.ledger, ListPublisher(), DictThresholds(), self.clock)
        outage = Outage("a test", logging.getLogger(__name__))
        self.republishing = Republishing(
            metering, self.ledger, self._publish, self.clock, turn=self.turn, database_outage=outage
        )

    async def _publish(self, counted: Sequence[Counted]) -> bool:
        assert self.turn.locked(), "a total must not overtake a newer one"
        if len(self.pages) == self.loses_at:
            return False
        self.pages.append(sorted(usage.group_id for one in counted for usage in one.totals.daily))
        return True

    async def count(self, number: int) -> None:
        events = [event(number, group_id=f"group-{number}")]
        await self.ledger.apply(batch(events, number, topic=USAGE_EVENTS, lane=lane_of(0)))
        self.clock.advance(minutes=20)

    async def again(self) -> list[list[str]]:
        self.pages = []
        await self.republishing.publish_again(0)
        return self.pages

    async def progress(self) -> Progress:
        found = await self.ledger.progress(USAGE_EVENTS, 0)
        assert found is not None
        return found


async def test_of_a_partition_that_nothing_was_counted_of_nothing_is_published() -> None:
    assert await Worker().again() == []


async def test_what_is_not_known_to_be_published_is_published_page_by_page_and_then_noted() -> None:
    worker = Worker()
    for number in (1, 2, 3):
        await worker.count(number)
    assert await worker.again() == [["group-1"], ["group-2"], ["group-3"]]
    assert (await worker.progress()).is_published
    assert await worker.again() == []

    await worker.count(4)
    assert await worker.again() == [["group-3"], ["group-4"]], "the last moment again: another change may bear it"
    assert (await worker.progress()).is_published


async def test_what_changed_lately_is_published_though_it_is_known_to_be_published() -> None:
    worker = Worker()
    await worker.count(1)
    assert await worker.again() == [["group-1"]]
    worker.clock.advance(minutes=-10)
    assert await worker.again() == [["group-1"]]


async def test_where_another_worker_has_moved_the_position_nothing_is_noted() -> None:
    worker = Worker()
    await worker.count(1)
    await worker.count(2)
    worker.loses_at = 1
    assert await worker.again() == [["group-1"]]
    assert (await worker.progress()).published_at is None

    worker.loses_at = None
    assert await worker.again() == [["group-1"], ["group-2"]]


async def test_what_changes_meanwhile_is_not_noted_as_published() -> None:
    worker = Worker()
    await worker.count(1)
    async with worker.turn:
        again = asyncio.create_task(worker.republishing.publish_again(0))
        await asyncio.sleep(0)
        await worker.count(2)
    await again
    found = await worker.progress()
    assert worker.pages == [["group-1"]]
    assert (found.published_offset, found.next_offset) == (2, 3)
    assert found.published_at == worker.clock.now - timedelta(minutes=40)
