"""A process that counts one event that reaches a share, keeps its alert and makes its delivery; killed at a step.

Run as ``python -m ... FILE STEP``. Each run is what a start of the embedded server does, then the rest.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from domain.limit_tree import Threshold
from metering import app as metering_app
from metering.store import alerts as kept
from metering.store import transaction
from metering.store.alerts import SqlAlerts
from runtime.database import engines as databases
from schemas.limits import LimitType
from tests.unit.metering.factories import NOON, SPOOL, batch, event
from tests.unit.metering.fakes import DictThresholds
from tests.unit.webhooks.kit import SECRET
from webhooks.core.deliveries import Receiver
from webhooks.flow.alerts import AlertIntake
from webhooks.store import alerts as stored
from webhooks.store.alerts import StoredAlertDeliveries

STEPS = (
    "before apply commits",
    "after apply",
    "before keep commits",
    "after keep",
    "after publish",
    "before enqueue_alerts commits",
    "after enqueue_alerts",
)


class Receivers:
    def receiver(self, _workspace_id: str, _now: object) -> Receiver:
        return Receiver("https://lab.example", enabled=True, secrets=(SECRET,))


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killing(module: Any, name: str) -> None:
    """Have a function of a transaction end the process before that commits."""
    whole: Callable[..., Any] = getattr(module, name)
    setattr(module, name, lambda *args, **named: _die(whole(*args, **named)))


async def run(file: Path, step: str) -> None:
    """Count, judge, tell, deliver."""
    for module, name in ((transaction, "apply"), (kept, "keep"), (stored, "enqueue_alerts")):
        if step == f"before {name} commits":
            _killing(module, name)
    thresholds = DictThresholds(**{"group-a": (Threshold(LimitType.REQUEST, 1),)})
    thresholds.shares = (100,)
    with databases.sqlite(file) as database:
        sink = metering_app.Handover(_die if step == "after keep" else lambda _: None)
        metering = metering_app.EmbeddedMetering(database, thresholds, sink, lambda: NOON)
        await metering.hand_over([NOON.date()], lambda _: None)
        if step == "after apply":
            metering._metering.publish = _die  # type: ignore[assignment]
        if await metering._ledger.position(SPOOL, 0) is None:
            await metering._metering.process(batch([event(1)]))
        if step == "after publish":
            _die()
        deliveries = StoredAlertDeliveries(database, SqlAlerts())
        await AlertIntake(deliveries, Receivers(), lambda: NOON, lambda: f"id-{os.getpid()}", asyncio.Event()).take_in()
        if step == "after enqueue_alerts":
            _die()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2]))
