"""The dispatcher's deliveries in memory, held to the real store by tests/contracts/control."""

from datetime import datetime
from typing import NamedTuple


class Delivery(NamedTuple):
    """A delivery; `status` as the table has it, `ended_at` None while it is pending."""

    workspace_id: str
    status: str
    ended_at: datetime | None


class FakeDeliveries:
    """Deliveries as `control.flow.deliveries` puts them back; at most two at once."""

    def __init__(self) -> None:
        self.kept: dict[str, Delivery] = {}

    def owner(self, delivery_id: str) -> str | None:
        found = self.kept.get(delivery_id)
        return found and found.workspace_id

    def redeliver(self, workspace_id: str, delivery_id: str, now: datetime) -> bool:
        if self.owner(delivery_id) != workspace_id:
            return False
        self._put_back(delivery_id)
        return True

    def redrive(self, workspace_id: str, now: datetime, *, since: datetime | None, until: datetime) -> int:
        found = sorted(
            (one.ended_at, name)
            for name, one in self.kept.items()
            if one.workspace_id == workspace_id
            and one.status in {"dead", "not_due"}
            and one.ended_at is not None
            and (since or one.ended_at) <= one.ended_at < until
        )[:2]
        for _, name in found:
            self._put_back(name)
        return len(found)

    @property
    def pending(self) -> list[str]:
        return sorted(name for name, one in self.kept.items() if one.status == "pending")

    def _put_back(self, name: str) -> None:
        self.kept[name] = self.kept[name]._replace(status="pending", ended_at=None)
