"""The dispatcher's deliveries, as control's flow asks for them and as they are shown.

Never holds a query: they are `webhooks`' own.
"""

from datetime import datetime

from sqlalchemy import Connection

from schemas.billing import Delivery, DeliveryAttempt
from webhooks.store import pages, redrive
from webhooks.store.pages import Listed


class Deliveries:
    """The deliveries of all workspaces, in one transaction. `per_s` is the rate of a redrive."""

    def __init__(self, connection: Connection, per_s: float) -> None:
        self._connection = connection
        self._per_s = per_s

    def owner(self, delivery_id: str) -> str | None:
        """Return the workspace of a delivery."""
        return pages.owner(self._connection, delivery_id)

    def redeliver(self, workspace_id: str, delivery_id: str, now: datetime) -> bool:
        """Put one back, to be attempted at once; False where it is gone."""
        return redrive.redeliver(self._connection, workspace_id, delivery_id, now)

    def redrive(self, workspace_id: str, now: datetime, since: datetime | None, until: datetime) -> int:
        """Put back at most `redrive.STEP`; return how many."""
        return redrive.redrive(self._connection, workspace_id, now, self._per_s, since=since, until=until)


def body(listed: Listed) -> Delivery:
    """Return a delivery as the API shows it."""
    return Delivery(
        id=listed.id,
        status=listed.status,
        reason=listed.reason,
        created_at=listed.created_at,
        event_count=listed.event_count,
        next_attempt_at=listed.next_attempt_at,
        attempts=tuple(DeliveryAttempt.model_validate(one, from_attributes=True) for one in listed.attempts),
    )
