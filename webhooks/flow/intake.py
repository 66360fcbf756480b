"""Follows one partition by pulling: reads, lingers until what all have waiting is to be cut, has it cut (counting 7).

Never reads what it holds again, and holds no more than one read of events.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from domain.sources import EventBatch, PartitionId
from runtime.clock import Clock
from runtime.outage import Pause
from runtime.telemetry.traces import SpanKind, Traces
from webhooks.core import batching
from webhooks.core.batching import CutNow, RenderedEvent
from webhooks.core.deliveries import Draft, Receiver, Status
from webhooks.flow.pool import Pool
from webhooks.flow.ports import Deliveries, Receivers

IDLE_WAIT_S = 5.0
"""The longest single wait for an event."""

Read = Callable[[int, int], Awaitable[EventBatch]]
Wait = Callable[[int, float], Awaitable[None]]


class Intake:
    """Turns stretches of usage events into deliveries."""

    def __init__(
        self,
        deliveries: Deliveries,
        receivers: Receivers,
        clock: Clock,
        new_id: Callable[[], str],
        delivery_size: int,
        *,
        traces: Traces | None = None,
    ) -> None:
        self._traces = traces
        self._deliveries = deliveries
        self._receivers = receivers
        self._clock = clock
        self._new_id = new_id
        self._delivery_size = delivery_size

    async def process(self, batches: Sequence[EventBatch]) -> bool:
        """Cut `batches` together, freeze and keep them; on return their positions are committed.

        Return whether that made something to deliver now. Raises what `Deliveries.enqueue` does.
        """
        now = self._clock()
        found = [event for batch in batches for event in batch.events]
        drafts = [self._draft(events, now) for events in batching.cut(found, self._delivery_size)]
        await self._deliveries.enqueue(drafts, batches, now)
        if self._traces is not None:
            times_s = now.timestamp(), self._clock().timestamp()
            for draft in drafts:
                parents = [one.event.traceparent for one in draft.events if one.event.traceparent]
                where = {"tollgate.delivery_id": draft.id}
                self._traces.add("webhook intake", SpanKind.CONSUMER, parents, times_s, where)
        return any(draft.status is Status.PENDING for draft in drafts)

    def _draft(self, events: tuple[RenderedEvent, ...], now: datetime) -> Draft:
        workspace_id = events[0].event.workspace_id
        return Draft(self._new_id(), workspace_id, status(self._receivers.receiver(workspace_id, now)), events)


def status(receiver: Receiver) -> Status:
    """Return what a new delivery for a receiver is."""
    return Status.PENDING if receiver.is_due else Status.NOT_DUE


class Follower:
    """Reads on from `offset`, each event once. `read` and `wait` are those of a partition, `pool` is the dispatcher's.

    An error leaves it unusable: begin anew from the stored position.
    """

    def __init__(
        self, place: PartitionId, read: Read, wait: Wait, pool: Pool, *, offset: int, pause: Pause = asyncio.sleep
    ) -> None:
        self._place = place
        self._read = read
        self._wait = wait
        self._pool = pool
        self._pause = pause
        self._next = offset
        """What is read next; all below is kept, or in the pool."""

    async def step(self) -> int:
        """Read once; then either have cut what waits, or wait for more. Return how many events were read."""
        held = self._pool.held(self._place)
        batch = await self._read(self._next, self._pool.batching.read_limit - (len(held.events) if held else 0))
        await self._pool.kept(self._place)  # another follower may have had it cut
        if batch.next_offset != batch.first_offset:  # lower, where the log was made anew
            self._next = batch.next_offset
            self._pool.add(self._place, batch)
        if self._pool.held(self._place) is None:
            await self._wait(self._next, IDLE_WAIT_S)
            return 0
        verdict = self._pool.verdict()
        if isinstance(verdict, CutNow):
            rest_s = await self._pool.cut(self._place)
            if rest_s is not None:
                await self._pause(rest_s)
        else:
            await self._wait(self._next + verdict.missing - 1, min(verdict.left_s, IDLE_WAIT_S))
        return len(batch.events)
