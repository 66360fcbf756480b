"""Turns usage alerts into deliveries, each alert into one (contract 2.5).

Never tells of an alert twice: the transaction that makes its delivery notes that in the alert.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from runtime import loops
from runtime.clock import Clock
from runtime.outage import Outage, Pause
from schemas.delivery import UsageAlert
from webhooks.core import batching
from webhooks.core.deliveries import AlertDraft, MakeAlertDrafts
from webhooks.flow import intake
from webhooks.flow.ports import Receivers

EVERY_S = 1.0
"""How often new alerts are looked for."""

MOST = 1000
"""Alerts in one transaction."""

DELIVERY_SIZE = 50
"""Alerts in one delivery: so its body is far below what common servers refuse."""

_log = logging.getLogger(__name__)


class AlertDeliveries(Protocol):
    """Keeps deliveries of alerts."""

    async def enqueue_alerts(self, make: MakeAlertDrafts, limit: int, now: datetime) -> int:
        """Have deliveries made of at most `limit` alerts that none tells of, and keep both, in one transaction.

        Return how many alerts that were.
        """


class AlertIntake:
    """Looks for new alerts, for as long as the dispatcher runs."""

    def __init__(
        self,
        deliveries: AlertDeliveries,
        receivers: Receivers,
        clock: Clock,
        new_id: Callable[[], str],
        wake: asyncio.Event,
        *,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._deliveries = deliveries
        self._receivers = receivers
        self._clock = clock
        self._new_id = new_id
        self._wake = wake
        self._pause = pause

    async def run(self) -> None:
        """Tell of new alerts, for ever."""
        await Outage("usage alerts", _log, self._pause).repeat(EVERY_S, self.take_in)

    async def take_in(self) -> None:
        """Make deliveries of all alerts that none tells of."""
        while True:
            now = self._clock()
            count = await self._deliveries.enqueue_alerts(lambda found: self._drafts(found, now), MOST, now)  # noqa: B023
            loops.turned(count)
            if count:
                self._wake.set()
            if count < MOST:
                return

    def _drafts(self, found: Sequence[tuple[str, UsageAlert]], now: datetime) -> list[AlertDraft]:
        drafts = []
        for workspace_id, of_one in groupby(sorted(found, key=itemgetter(0)), key=itemgetter(0)):
            alerts = [alert for _, alert in of_one]
            status = intake.status(self._receivers.receiver(workspace_id, now))
            for start in range(0, len(alerts), DELIVERY_SIZE):
                some = alerts[start : start + DELIVERY_SIZE]
                ids = tuple(alert.id for alert in some)
                drafts.append(AlertDraft(self._new_id(), workspace_id, status, ids, batching.freeze_alerts(some)))
        return drafts
