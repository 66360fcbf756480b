"""Metering's story: apply a batch, decide on what it names, publish; only then is the batch acknowledged (contract 4).

Never publishes a total that is not committed, and never counts: the ledger's one transaction does (counting 4, 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol, TypeVar

from domain.limit_tree import Threshold
from domain.positions import PositionLostError, Progress, Span
from domain.sources import EventBatch
from metering.core.decisions import decide
from metering.core.sums import Totals
from runtime.clock import Clock
from schemas.daily import DailyUsage
from schemas.decisions import Decision

Told = TypeVar("Told", Decision, DailyUsage)

SEND_WITHIN = timedelta(seconds=5)
"""A writer that needs longer from its transaction to its send looks whether it still owns the partition."""


class Ledger(Protocol):
    """Counts each usage event once."""

    async def apply(self, batch: EventBatch) -> Totals:
        """Count what is new in one transaction; return the current totals of everything the batch names, new or not.

        Raise BeyondPositionError, PositionLostError; both leave everything as it was.
        """

    async def position(self, topic: str, partition: int) -> int | None:
        """Return the committed next offset; None where nothing of the partition was counted yet."""

    async def progress(self, topic: str, partition: int) -> Progress | None:
        """Return how far the partition is counted and published; None where nothing of it was counted yet."""

    async def changed(self, topic: str, partition: int, lane: str, span: Span) -> tuple[Totals, datetime]:
        """Return the totals of `lane` that changed last within `span`, and the partition's position with them.

        Where those are many it gives the oldest, and the moment (inclusive) up to which these are all.
        """

    async def note_published(self, topic: str, partition: int, upto: Progress) -> None:
        """Note that all that had changed when the partition stood at `upto` is published."""


class TotalsSink(Protocol):
    """Hands totals to their readers."""

    async def publish(self, decisions: Sequence[Decision], daily: Sequence[DailyUsage]) -> None:
        """Return when the readers' side has them for good."""


class Thresholds(Protocol):
    """Knows the limits that groups set."""

    def of(self, group_id: str, model_slug: str) -> tuple[Threshold, ...]:
        """Return the day thresholds that are compared with this counter; empty for a group that is not known."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What is to be told of one partition: the totals that a transaction of the ledger gave."""

    batch: EventBatch
    totals: Totals
    began_at: datetime
    """Before the transaction: a pause right after its commit must not go unseen."""


class Metering:
    """Turns batches of usage events into counts and decisions."""

    def __init__(self, ledger: Ledger, publisher: TotalsSink, thresholds: Thresholds, clock: Clock) -> None:
        self._ledger = ledger
        self._publisher = publisher
        self._thresholds = thresholds
        self._clock = clock

    async def process(self, batch: EventBatch) -> None:
        """Count `batch` and publish what it names. On return it may be acknowledged, on an error it may not.

        A batch that comes again changes no sum, and its totals are published again: so a crash between commit and
        send heals. Raise BeyondPositionError, PositionLostError, and whatever the ledger or the publisher raise.
        """
        await self.publish([await self.count(batch)])

    async def count(self, batch: EventBatch) -> Counted:
        """Count `batch`; what it names is still to be published. Raises as the ledger does."""
        began_at = self._clock()
        return Counted(batch, await self._ledger.apply(batch), began_at)

    async def changed(self, topic: str, partition: int, lane: str, span: Span) -> tuple[Counted, datetime]:
        """Find what changed on a lane, as the ledger's `changed` does, to publish it again (counting 5)."""
        began_at = self._clock()
        totals, reached = await self._ledger.changed(topic, partition, lane, span)
        nothing_read = EventBatch(topic, partition, lane, totals.position or 0, totals.position or 0, ())
        return Counted(nothing_read, totals, began_at), reached

    async def publish(self, counted: Sequence[Counted]) -> None:
        """Publish the newest of every counter that `counted` names, each once. It may be called again after an error.

        What took longer than SEND_WITHIN is looked at again first: where another worker has moved the position since,
        its totals are left out, and PositionLostError is raised after the others were published.
        """
        owned, lost = await self._owned(counted)
        decided: dict[tuple[str, str, date], Decision] = {}
        daily: dict[tuple[str, str, date], DailyUsage] = {}
        for totals in (one.totals for one in owned):
            for decision in decisions(totals, self._thresholds):
                _keep_newest(decided, (decision.group_id, decision.model_slug, decision.day), decision)
            for usage in totals.daily:
                _keep_newest(daily, (usage.group_id, usage.model_slug, usage.day), usage)
        if decided or daily:
            await self._publisher.publish(tuple(decided.values()), tuple(daily.values()))
        if lost is not None:
            raise PositionLostError(lost)

    async def _owned(self, counted: Sequence[Counted]) -> tuple[list[Counted], EventBatch | None]:
        """Return what may be published, and one batch of those whose partition another worker has moved."""
        ends = {_place(one): one.totals.position for one in counted}  # several batches of one partition come in order
        owned: list[Counted] = []
        lost: EventBatch | None = None
        for one in counted:
            is_late = self._clock() - one.began_at > SEND_WITHIN
            if is_late and await self._ledger.position(*_place(one)) != ends[_place(one)]:
                lost = one.batch
            else:
                owned.append(one)
        return owned, lost


def decisions(totals: Totals, thresholds: Thresholds) -> tuple[Decision, ...]:
    """Decide on every limit total of one lane."""
    return tuple(
        decide(total, thresholds.of(total.counter.group_id, total.counter.model_slug), totals.marks)
        for total in totals.limits
    )


def _place(counted: Counted) -> tuple[str, int]:
    return counted.batch.topic, counted.batch.partition


def _keep_newest(newest: dict[tuple[str, str, date], Told], key: tuple[str, str, date], one: Told) -> None:
    """Of equal versions the later stays: its marks may have moved since."""
    known = newest.get(key)
    if known is None or one.version >= known.version:
        newest[key] = one
