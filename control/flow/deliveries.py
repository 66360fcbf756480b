"""Deliveries that ended, and their way back to their receiver (contract 2.5).

Never touches another workspace's delivery, and never puts back without end what fails again meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.unit_of_work import UnitOfWork
from schemas.base import rfc3339

PutBack = Callable[[str, str, datetime], bool]
"""Put one delivery of a workspace back, to be attempted at once; one that is pending stays as it is. False: gone."""


class PutBackSome(Protocol):
    """Puts back some of what ended."""

    def __call__(self, workspace_id: str, now: datetime, *, since: datetime | None, until: datetime) -> int:
        """Put back as many as a transaction can of what ended in the window, at a bounded rate; return how many."""


def check_owner(workspace_id: str, owner: str | None) -> None:
    """Raise NotFoundError where a delivery has no `owner`, so is not there, ForbiddenError where it is another's."""
    if owner is None:
        raise _not_found()
    if owner != workspace_id:
        raise ForbiddenError("delivery_id: belongs to another workspace", param="delivery_id", code="other_workspace")


def _not_found() -> NotFoundError:
    return NotFoundError("delivery_id: no delivery has this id", param="delivery_id", code="not_found")


def redeliver(unit: UnitOfWork, delivery_id: str, owner: str | None, put_back: PutBack) -> None:
    """Have one delivery attempted again, whatever became of it. Raise NotFoundError, ForbiddenError.

    `owner` is the delivery's workspace, None where there is no such delivery.
    """
    check_owner(unit.workspace_id, owner)
    if not put_back(unit.workspace_id, delivery_id, unit.now):
        raise _not_found()
    unit.journal.note(unit.workspace_id, "delivery.redeliver", delivery_id)


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


def step(unit: UnitOfWork, redrive: Redrive, put_back: PutBackSome) -> Redrive:
    """Put back a part, in a transaction of its own; call it until the count stands.

    The journal has one entry of a redrive that puts anything back, written with its first step.
    """
    count = put_back(redrive.workspace_id, unit.now, since=redrive.since, until=redrive.until)
    if count and not redrive.count:
        window = {"from": None if redrive.since is None else rfc3339(redrive.since), "to": rfc3339(redrive.until)}
        unit.journal.note(redrive.workspace_id, "deliveries.redrive", redrive.workspace_id, after=window)
    return replace(redrive, count=redrive.count + count)
