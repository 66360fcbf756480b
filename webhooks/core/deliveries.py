"""What passes between the dispatcher's parts: deliveries on their way from a stretch of events to a receiver."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from schemas.billing import DeliveryStatus
from schemas.delivery import UsageAlert
from webhooks.core.batching import RenderedEvent
from webhooks.core.retry import Decision


class Queue(StrEnum):
    """Which way a delivery comes to its next attempt; each workspace has its own of each."""

    FIRST = "first"
    """The run's first attempt."""
    REDRIVEN = "redriven"
    """The same of a run that a redrive began: as FIRST, at the redrive's rate."""
    RETRY = "retry"
    """The run has failed at least once."""
    PROBE = "probe"
    """The receiver is held, and this one attempt shows whether it is back (`core.health`)."""


Status = DeliveryStatus
"""Where a delivery stands (contract 2.5)."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A delivery before it is frozen: its events may still turn out to be known already."""

    id: str
    """A UUID, the X-Baseten-Request-ID of all its attempts."""
    workspace_id: str
    status: Status
    events: tuple[RenderedEvent, ...]


@dataclass(frozen=True, slots=True)
class AlertDraft:
    """A delivery of usage alerts before it is kept."""

    id: str
    workspace_id: str
    status: Status
    alert_ids: tuple[str, ...]
    body: bytes = field(repr=False)


MakeAlertDrafts = Callable[[Sequence[tuple[str, UsageAlert]]], Sequence[AlertDraft]]
"""Makes the deliveries of (workspace, alert)s."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where a workspace's deliveries go at this moment."""

    url: str | None
    enabled: bool
    secrets: tuple[str, ...] = field(repr=False)
    """Those valid now, newest first."""

    @property
    def is_due(self) -> bool:
        """Whether new deliveries are to be attempted at all; else they are `not_due`."""
        return self.enabled and self.url is not None

    @property
    def is_ready(self) -> bool:
        """Whether an attempt can be made now."""
        return self.is_due and bool(self.secrets)


@dataclass(frozen=True, slots=True)
class WaitingQueue:
    """The earliest moment at which a workspace has something to claim in one of its queues."""

    workspace_id: str
    queue: Queue
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Share:
    """How many deliveries of one queue of a workspace may be claimed now."""

    workspace_id: str
    queue: Queue
    count: int


@dataclass(frozen=True, slots=True)
class Claim:
    """A delivery that is this dispatcher's until its lease ends."""

    delivery_id: str
    token: str
    """Tells this claim from a later one of the same delivery."""
    workspace_id: str
    body: bytes = field(repr=False)
    queue: Queue
    attempt_number: int
    """The coming attempt's, from 1 within the run."""
    first_attempt_at: datetime
    """When the run's first attempt was claimed."""
    planned_at: datetime
    claimed_at: datetime
    lease_ends_at: datetime
    """From then on another dispatcher may claim it (exclusive)."""
    was_lost: bool = False
    """Whether an earlier claim of it ran out: its dispatcher went away."""
    event_count: int = 1
    traces: tuple[str, ...] = ()
    """The `traceparent` of each of its events that has one."""

    @property
    def is_begun(self) -> bool:
        """Whether its run had begun before this claim."""
        return self.first_attempt_at < self.claimed_at

    def holds(self, started_at: datetime, timeout_s: float) -> bool:
        """Tell whether an attempt that begins at `started_at` ends before anybody else may make one."""
        return started_at + timedelta(seconds=timeout_s) < self.lease_ends_at


@dataclass(frozen=True, slots=True)
class Prepared:
    """One attempt, ready to be sent."""

    url: str
    headers: dict[str, str]
    body: bytes = field(repr=False)
    timeout_s: float
    workspace_id: str = ""
    """Whose look-ups it makes."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver, as it is kept."""

    at: datetime
    status_code: int | None
    error: str | None
    duration_ms: int
    answer: str | None = None
    """The receiver's words; None where no answer came, or where they are not asked for."""


@dataclass(frozen=True, slots=True)
class ClaimEnd:
    """A claim's end. Without an attempt the decision is Release."""

    claim: Claim
    attempt: Attempt | None
    decision: Decision
