"""The ports of the dispatcher's story: what intake and dispatch ask of the database, the receivers and the network."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from domain.sources import EventBatch
from webhooks.core.deliveries import Claim, ClaimEnd, Draft, Prepared, Receiver, Share, WaitingQueue
from webhooks.core.retry import AttemptResult


class Deliveries(Protocol):
    """Keeps deliveries, their events and attempts, and the position of intake."""

    async def enqueue(self, drafts: Sequence[Draft], batches: Sequence[EventBatch], now: datetime) -> None:
        """Freeze and keep what `drafts` hold that is new, and move the positions over `batches`, in one transaction.

        Each batch is of another partition. Raise PositionLostError where a position is not its batch's first offset;
        nothing is kept then.
        """

    async def position(self, topic: str, partition: int) -> int | None:
        """Return the next offset to take in of a partition; None where nothing of it was taken in yet."""

    async def waiting(self) -> Sequence[WaitingQueue]:
        """Return each queue that has something to claim, with the earliest moment it may be claimed."""

    async def claim(self, shares: Sequence[Share], now: datetime, *, takes_over: bool = True) -> Sequence[Claim]:
        """Claim what is due, at most the shares; the longest due first.

        Unless it `takes_over`, what another has claimed stays that one's after its lease has ended.
        """

    async def finish(self, ends: Sequence[ClaimEnd], now: datetime) -> None:
        """Write the attempts, what became of their deliveries and how their receivers do, in one transaction.

        Safe to repeat.
        """


class Receivers(Protocol):
    """Knows where each workspace's deliveries go."""

    def receiver(self, workspace_id: str, now: datetime) -> Receiver:
        """Return the receiver of this moment; one without a URL where nothing is known."""


class Sender(Protocol):
    """Makes attempts."""

    async def send(self, prepared: Prepared) -> AttemptResult:
        """Make one attempt, within its timeout. Never raises for what a receiver or the network does."""
