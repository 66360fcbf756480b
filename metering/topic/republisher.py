"""Publishes totals again: what is not known to be published, and what changed lately (counting 5).

Never notes that totals are published before Kafka has them, and never holds the counting up for more than a page.

Why, though each batch's totals are published right after its commit:

- A worker may die in between, or find itself late and leave its totals to whoever has moved the position since. Each
  assignment begins at the database's position, so such a batch does not come again. The position's row therefore says
  up to where all is known to be published, and everything from there on is published.
- Compaction keeps the record that was written last, and a worker that was paused may write an old one late. So what
  changed in the last 10 minutes is written again, though it was published.
"""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from functools import partial

from domain import positions
from domain.positions import Span
from metering import flow
from metering.flow import Counted
from metering.topic.batches import lane_of
from runtime.clock import Clock
from runtime.outage import Outage
from schemas.topics import USAGE_EVENTS

LATELY = timedelta(minutes=10)
_NEXT = timedelta(microseconds=1)
"""What both engines tell moments apart by."""

Publish = Callable[[Sequence[Counted]], Awaitable[bool]]
"""Says whether Kafka has all of it; what another worker is to publish is left out."""


class Republishing:
    """Of one worker; `turn` is held by whoever counts or publishes, so that no total overtakes a newer one."""

    def __init__(
        self,
        metering: flow.Metering,
        ledger: flow.Ledger,
        publish: Publish,
        clock: Clock,
        *,
        turn: AbstractAsyncContextManager[None],
        database_outage: Outage,
    ) -> None:
        self._metering = metering
        self._ledger = ledger
        self._publish = publish
        self._clock = clock
        self._turn = turn
        self._outage = database_outage

    async def publish_again(self, partition: int) -> None:
        """Publish what is to be published of a partition, some at a time, and note how far that went.

        What changes meanwhile is left out: its own batch publishes it, and what is noted does not reach so far.
        """
        place = (USAGE_EVENTS, partition)
        progress = await self._outage.ride_out(lambda: self._ledger.progress(*place))
        if progress is None:
            return
        lately = self._clock() - LATELY
        since = min(lately, positions.unpublished_since(progress) or lately)
        while since <= progress.recorded_at:
            async with self._turn:
                span = Span(since, progress.recorded_at)
                read = partial(self._metering.changed, *place, lane_of(partition), span)
                counted, reached = await self._outage.ride_out(read)
                if not await self._publish([counted]):
                    return
            since = reached + _NEXT
        if not progress.is_published:
            await self._outage.ride_out(lambda: self._ledger.note_published(*place, progress))
