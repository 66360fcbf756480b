"""Wires the dispatcher: store, sender and receivers into intake and dispatch, and keeps both going.

Never swallows an error: an outage of the database is ridden out and logged once, anything else ends the task.
"""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Collection, Mapping

from domain.sources import EventSource
from runtime import clock as clocks
from runtime import ssrf_guard
from runtime.clock import Clock
from runtime.database.engines import Database
from runtime.lookups import Lookups
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from runtime.telemetry.traces import Traces
from runtime.vault import Vault
from schemas.config import ConfigChange
from webhooks import receivers, sender
from webhooks.closed_days import ClosedDays, LedgerView
from webhooks.core.deliveries import Status
from webhooks.flow.alerts import AlertIntake
from webhooks.flow.dispatch import Dispatch
from webhooks.flow.intake import Intake
from webhooks.flow.loops import DispatchLoop, IntakeLoop
from webhooks.policies import Policies
from webhooks.store import claims
from webhooks.store import deliveries as delivery_store
from webhooks.store.alerts import Alerts, StoredAlertDeliveries
from webhooks.upkeep import Upkeep

_log = logging.getLogger(__name__)


class Dispatcher:
    """Takes usage events in and delivers them.

    Feed it the configuration with `apply` before `follow` begins: deliveries cut earlier would be `not_due`.
    `spools` are the topics of those spools that exist: the positions of others are removed.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Clock,
        settings: Settings,
        *,
        policies: Policies | None = None,
        resolver: ssrf_guard.Resolver | None = None,
        ledger: LedgerView | None = None,
        alerts: Alerts | None = None,
        spools: Collection[str] = (),
        present: Clock = clocks.present,
        traces: Traces | None = None,
    ) -> None:
        """Without `policies` as the settings say; without `ledger` every day is taken. `present` is what is signed.

        `alerts` are the usage alerts that are told of.
        """
        policies = _checked(policies or Policies.of(settings))
        deliveries = delivery_store.StoredDeliveries(database, policies.claimed_for_s, policies.rule)
        self._database = database
        self._receivers = receivers.ConfiguredReceivers(vault)
        self._sender = _sender(settings, resolver)
        self._dispatch = self._dispatching(deliveries, policies, clock, present, traces)
        self._upkeep = Upkeep(
            *(database, clock, policies.rule, policies.keep_days), longest_wait_s=policies.longest_wait_s, spools=spools
        )
        self._wake = asyncio.Event()
        self._intake = IntakeLoop(
            Intake(deliveries, self._receivers, clock, _new_id, policies.batching.delivery_size, traces=traces),
            deliveries,
            self._wake,
            batching=policies.batching,
            only=ClosedDays(database, clock, ledger).only if ledger else None,
        )
        self._delivering = DispatchLoop(self._dispatch, self._wake)
        kept = None if alerts is None else StoredAlertDeliveries(database, alerts)
        self._alerts = None if kept is None else AlertIntake(kept, self._receivers, clock, _new_id, self._wake)

    def _dispatching(
        self,
        deliveries: delivery_store.StoredDeliveries,
        policies: Policies,
        clock: Clock,
        present: Clock,
        traces: Traces | None,
    ) -> Dispatch:
        return Dispatch(
            deliveries,
            self._receivers,
            self._sender,
            clock=clock,
            present=present,
            jitter=random.SystemRandom().random,
            policy=policies.policy,
            limits=policies.limits,
            per_s=policies.per_s,
            traces=traces,
        )

    def apply(self, change: ConfigChange) -> None:
        """Take one step of the configuration feed."""
        self._receivers.apply(change)
        self._wake.set()

    def committed(self, topic: str, partition: int) -> int:
        """Return the first offset that is not yet taken in for good; 0 before `follow` has read the position."""
        return self._intake.committed(topic, partition)

    def register_metrics(self, telemetry: Telemetry, lag: Callable[[], Mapping[str, int]]) -> None:
        """Show what becomes of attempts and deliveries; `lag` says how many events intake has yet to take in."""
        dispatch = self._dispatch
        telemetry.gauge("tollgate_webhook_lag_events", "Usage events still to take in, by partition.", lag, "partition")
        telemetry.gauge(
            "tollgate_webhook_overdue_seconds",
            "For how long the oldest delivery has been due whose attempt may begin, at the last look.",
            lambda: dispatch.overdue_s,
        )
        telemetry.counter(
            "tollgate_webhook_attempts_total",
            "Attempts to deliver, by the class of the receiver's status: 2xx to 5xx, or no_answer.",
            lambda: dispatch.attempts,
            "status",
        )
        telemetry.gauge("tollgate_webhook_attempts_in_flight", "Attempts under way.", lambda: dispatch.in_flight)
        telemetry.counter(
            "tollgate_webhook_deliveries_total",
            "Deliveries that this dispatcher brought to their end: delivered or dead.",
            lambda: {status.value: dispatch.ended[status] for status in (Status.DELIVERED, Status.DEAD)},
            "status",
        )

    async def take_over(self) -> None:
        """Free what a dispatcher that died had claimed. Only where no other can be running on this database."""
        freed = await self._database.write(claims.free_claims)
        if freed:
            _log.warning("%d deliveries were under way when the last process died; they are attempted again", freed)

    async def follow(self, partition: EventSource) -> None:
        """Take in one partition, for ever. May be cancelled at any moment: nothing is lost or taken in twice.

        Raise PositionLostError where another worker has taken the partition over.
        """
        await self._intake.follow(partition)

    async def run(self) -> None:
        """Deliver until `drain`. Call once; any error but an outage of the database ends it."""
        beside = {"webhook redrive": self._upkeep.redrive(), "webhook retention": self._upkeep.remove()}
        if self._alerts is not None:
            beside["usage alerts"] = self._alerts.run()
        await self._delivering.run(beside)

    async def drain(self, timeout_s: float) -> bool:
        """Begin no more attempts, and wait until those in flight are finished; says whether they were in time.

        What is not finished in time is attempted again when its lease has ended.
        """
        return await self._delivering.drain(timeout_s)

    async def close(self) -> None:
        """Close the connections to receivers; `run` must have ended."""
        await self._sender.aclose()


def _checked(policies: Policies) -> Policies:
    for line in policies.contradictions():
        _log.warning("%s", line)
    return policies


def _new_id() -> str:
    return str(uuid.uuid4())


def _sender(settings: Settings, resolver: ssrf_guard.Resolver | None) -> sender.HttpSender:
    lookups = Lookups(share=settings.share_lookups)
    return sender.HttpSender(allow_private=settings.allow_private_receivers, resolver=resolver, lookups=lookups)
