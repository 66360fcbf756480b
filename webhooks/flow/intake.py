"""Follows one partition by pulling: reads, lingers until a stretch is to be cut, hands it on (counting 7).

Never moves on before the stretch is processed, and never holds more than one read of events.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime

from domain.sources import EventBatch
from runtime import loops
from runtime.clock import Clock, Steady
from runtime.outage import Pause
from webhooks.core import batching
from webhooks.core.batching import Batching, Billed
from webhooks.core.deliveries import Draft, Status
from webhooks.flow.ports import Deliveries, Receivers

IDLE_WAIT_S = 5.0
"""The longest single wait for an event."""

Read = Callable[[int, int], Awaitable[EventBatch]]
Wait = Callable[[int, float], Awaitable[None]]
Process = Callable[[EventBatch], Awaitable[None]]


class Intake:
    """Turns stretches of usage events into deliveries."""

    def __init__(
        self,
        deliveries: Deliveries,
        receivers: Receivers,
        clock: Clock,
        new_id: Callable[[], str],
        delivery_size: int,
    ) -> None:
        self._deliveries = deliveries
        self._receivers = receivers
        self._clock = clock
        self._new_id = new_id
        self._delivery_size = delivery_size

    async def process(self, batch: EventBatch) -> bool:
        """Cut, freeze and keep `batch`; on return its position is committed. Raises what `Deliveries.enqueue` does.

        Return whether that made something to deliver now.
        """
        now = self._clock()
        drafts = [self._draft(events, now) for events in batching.cut(batch.events, self._delivery_size)]
        await self._deliveries.enqueue(drafts, batch, now)
        return any(draft.status is Status.PENDING for draft in drafts)

    def _draft(self, events: tuple[Billed, ...], now: datetime) -> Draft:
        workspace_id = events[0].event.workspace_id
        return Draft(self._new_id(), workspace_id, self._status(workspace_id, now), events)

    def _status(self, workspace_id: str, now: datetime) -> Status:
        return Status.PENDING if self._receivers.receiver(workspace_id, now).is_due else Status.NOT_DUE


class Follower:
    """Reads on from `offset`, each event once. `read` and `wait` are those of a partition, `process` is intake's.

    An error leaves it unusable: begin anew from the stored position.
    """

    def __init__(
        self,
        read: Read,
        wait: Wait,
        process: Process,
        *,
        batching: Batching,
        offset: int,
        steady: Steady = time.monotonic,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._read = read
        self._wait = wait
        self._process = process
        self._steady = steady
        self._pause = pause
        self._batching = batching
        self._offset = offset
        self._stretch: EventBatch | None = None
        self._seen_at_s = steady()

    async def step(self) -> None:
        """Read once; then either process what waits or wait for more."""
        held = self._stretch
        start = held.next_offset if held else self._offset
        batch = await self._read(start, self._batching.read_limit - (len(held.events) if held else 0))
        if held is None:
            self._seen_at_s = self._steady()
        else:
            batch = replace(batch, first_offset=held.first_offset, events=held.events + batch.events)
        missing, timeout_s = self._lacks(batch)
        if missing:
            self._stretch = batch if batch.events else None
            await self._wait(batch.next_offset + missing - 1, timeout_s)
            return
        began_s = self._steady()
        await self._process(batch)
        self._offset = batch.next_offset
        self._stretch = None
        if len(batch.events) < self._batching.read_limit:
            await self._pause(loops.rest_s(self._steady() - began_s, 0.0, self._batching.linger_s))

    def _lacks(self, batch: EventBatch) -> tuple[int, float]:
        """Say how many events are missing before `batch` is worth a look, and for how long at most; 0: it is to go."""
        if not batch.events:
            # Unreadable records alone, or a source made anew: the position moves all the same.
            return (0, 0.0) if batch.next_offset != batch.first_offset else (1, IDLE_WAIT_S)
        verdict = batching.decide(batch.events, self._steady() - self._seen_at_s, self._batching)
        if isinstance(verdict, batching.CutNow):
            return 0, 0.0
        return verdict.missing, min(verdict.left_s, IDLE_WAIT_S)
