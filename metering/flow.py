"""Metering's story: apply a batch, decide on what it names, publish; only then is the batch acknowledged (spec 4).

Never publishes a total that is not committed, and never counts: the ledger's one transaction does (design 3.4, 3.5).
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from metering.core import decide
from metering.core.hierarchy import Threshold
from metering.core.position import PositionLostError
from metering.core.rollup import Totals
from runtime.clock import Clock
from schemas.daily import DailyUsage
from schemas.decisions import Decision
from schemas.topics import UsageBatch

SEND_WITHIN = timedelta(seconds=5)
"""A writer that needs longer from its transaction to its send looks whether it still owns the partition."""


class Ledger(Protocol):
    """Counts each usage event once."""

    async def apply(self, batch: UsageBatch) -> Totals:
        """Count what is new in one transaction; give the current totals of everything the batch names, new or not.

        Raises BeyondPositionError, PositionLostError; both leave everything as it was.
        """

    async def position(self, topic: str, partition: int) -> int | None:
        """Give the committed next offset; None where nothing of the partition was counted yet."""


class Publisher(Protocol):
    """Hands totals to their readers."""

    async def publish(self, decisions: Sequence[Decision], daily: Sequence[DailyUsage]) -> None:
        """Return when the readers' side has them for good."""


class Thresholds(Protocol):
    """Knows the limits that groups set."""

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        """Give the day thresholds that are compared with this counter; empty for a group that is not known."""


class Partition(Protocol):
    """One ordered source of usage events."""

    topic: str
    partition: int
    lane: str
    first_offset: int
    """Where reading starts while nothing of the partition was counted."""

    async def read(self, offset: int, limit: int) -> UsageBatch:
        """Give at most `limit` events from `offset` on; without any, `next_offset` equals `offset`."""

    async def wait(self, offset: int, timeout_s: float) -> None:
        """Return when an event at or above `offset` exists, or at the timeout."""


class Metering:
    """Turns batches of usage events into counts and decisions."""

    def __init__(self, ledger: Ledger, publisher: Publisher, thresholds: Thresholds, clock: Clock) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._thresholds = thresholds
        self._clock = clock

    async def process(self, batch: UsageBatch) -> None:
        """Count `batch` and publish what it names. On return it may be acknowledged, on an error it may not.

        A batch that comes again changes no sum, and its totals are published again: so a crash between commit and
        send heals. Raises BeyondPositionError, PositionLostError, and whatever the ledger or the publisher raise.
        """
        began = self._clock()
        totals = await self._ledger.apply(batch)
        decided = decisions(totals, self._thresholds)
        # Measured from before the transaction: a pause right after the commit must not go unseen.
        if self._clock() - began > SEND_WITHIN:
            await self._still_ours(batch, totals)
        await self._publisher.publish(decided, totals.daily)

    async def _still_ours(self, batch: UsageBatch, totals: Totals) -> None:
        if await self._ledger.position(batch.topic, batch.partition) != totals.position:
            raise PositionLostError(batch)


def decisions(totals: Totals, thresholds: Thresholds) -> tuple[Decision, ...]:
    """Decide on every limit total of one lane."""
    return tuple(
        decide.decide(total, thresholds.of(total.counter.group_id, total.counter.model_slug), totals.marks)
        for total in totals.limits
    )
