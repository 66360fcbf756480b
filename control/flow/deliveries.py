"""Deliveries that ended, and their way back to their receiver (contract 2.5).

Never touches another workspace's delivery, and never puts back without end what fails again meanwhile.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow.journal import Journal
from schemas.base import rfc3339


class Deliveries(Protocol):
    """The stored deliveries."""

    def owner(self, delivery_id: str) -> str | None:
        """Return the workspace of a delivery."""

    def redeliver(self, workspace_id: str, delivery_id: str, now: datetime) -> bool:
        """Put one back, to be attempted at once; one that is pending stays as it is. False: it is gone."""

    def redrive(self, workspace_id: str, now: datetime, since: datetime | None, until: datetime) -> int:
        """Put back some that ended in the window, as many as a transaction can, at a bounded rate; return how many."""


def redeliver(deliveries: Deliveries, journal: Journal, now: datetime, *, workspace_id: str, delivery_id: str) -> None:
    """Have one delivery attempted again, whatever became of it. Raise NotFoundError, ForbiddenError."""
    owner = deliveries.owner(delivery_id)
    if owner is not None and owner != workspace_id:
        raise ForbiddenError("delivery_id: belongs to another workspace", param="delivery_id", code="other_workspace")
    if owner is None or not deliveries.redeliver(workspace_id, delivery_id, now):
        raise NotFoundError("delivery_id: no delivery has this id", param="delivery_id", code="not_found")
    journal.note(workspace_id, "delivery.redeliver", delivery_id)


@dataclass(frozen=True, slots=True)
class Redrive:
    """One redrive under way: of what ended in [`since`, `until`), of which `count` are back."""

    workspace_id: str
    since: datetime | None
    until: datetime
    count: int = 0


def plan(workspace_id: str, since: datetime | None, until: datetime | None, now: datetime) -> Redrive:
    """Begin a redrive; what fails from `now` on is never part of it. Raise InvalidError."""
    if since is not None and until is not None and until < since:
        raise InvalidError("to: must not be before from", param="to")
    return Redrive(workspace_id, since, min(until or now, now))


def step(deliveries: Deliveries, journal: Journal, now: datetime, redrive: Redrive) -> Redrive:
    """Put back a part, in a transaction of its own; call it until the count stands.

    The journal has one entry of a redrive that puts anything back, written with its first step.
    """
    count = deliveries.redrive(redrive.workspace_id, now, redrive.since, redrive.until)
    if count and not redrive.count:
        window = {"from": None if redrive.since is None else rfc3339(redrive.since), "to": rfc3339(redrive.until)}
        journal.note(redrive.workspace_id, "deliveries.redrive", redrive.workspace_id, after=window)
    return replace(redrive, count=redrive.count + count)
