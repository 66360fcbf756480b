"""Keeps deliveries of usage alerts, in the transaction that notes in each alert which delivery tells of it."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, insert

from runtime.database.engines import Database
from schemas.delivery import UsageAlert
from webhooks.core.deliveries import MakeAlertDrafts
from webhooks.store.deliveries import delivery_row
from webhooks.store.tables import DELIVERY


class Alerts(Protocol):
    """What the dispatcher asks of whoever keeps alerts."""

    def untold(self, connection: Connection, limit: int) -> Sequence[tuple[str, UsageAlert]]:
        """Return at most `limit` (workspace, alert) that no delivery tells of yet, locked until the transaction ends.

        What another transaction has locked is left out.
        """

    def told(self, connection: Connection, deliveries: Mapping[str, str]) -> None:
        """Note by the alerts' ids which deliveries tell of them."""


class StoredAlertDeliveries:
    """The `AlertDeliveries` port on the database."""

    def __init__(self, database: Database, alerts: Alerts) -> None:
        self._database = database
        self._alerts = alerts

    async def enqueue_alerts(self, make: MakeAlertDrafts, limit: int, now: datetime) -> int:
        """Run `enqueue_alerts` as one transaction."""
        return await self._database.write(lambda connection: enqueue_alerts(connection, self._alerts, make, limit, now))


def enqueue_alerts(connection: Connection, alerts: Alerts, make: MakeAlertDrafts, limit: int, now: datetime) -> int:
    """Make deliveries of at most `limit` alerts that none tells of; return how many alerts that were."""
    found = alerts.untold(connection, limit)
    drafts = make(found)
    if drafts:
        connection.execute(insert(DELIVERY), [delivery_row(draft, draft.body, 0, now) for draft in drafts])
        alerts.told(connection, {alert: draft.id for draft in drafts for alert in draft.alert_ids})
    return len(found)
