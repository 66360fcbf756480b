"""Wires the dispatcher: store, sender and receivers into intake and dispatch, and keeps both going.

Never swallows an error: an outage of the database is ridden out and logged once, anything else ends the task.
"""

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Collection

from domain.sources import EventBatch, EventSource
from runtime import clock as clocks
from runtime import guard, loops
from runtime.clock import Clock
from runtime.database.engines import Database
from runtime.lookups import Lookups
from runtime.outage import Outage
from runtime.settings import Settings
from runtime.telemetry.metrics import Telemetry
from runtime.vault import Vault
from schemas.config import ConfigChange
from webhooks import receivers, sender
from webhooks.closed_days import ClosedDays, LedgerView
from webhooks.core.deliveries import Claim, Status
from webhooks.flow import intake
from webhooks.flow.dispatch import Dispatch
from webhooks.flow.intake import Intake
from webhooks.policies import Policies
from webhooks.store import claims
from webhooks.store import deliveries as delivery_store
from webhooks.upkeep import Upkeep

POLL_S = 0.5
"""How long dispatch rests at most: what other processes queue, and receivers that change, are seen by then."""

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
        resolver: guard.Resolver | None = None,
        ledger: LedgerView | None = None,
        spools: Collection[str] = (),
        present: Clock = clocks.present,
    ) -> None:
        """Without `policies` as the settings say; without `ledger` every day is taken. `present` is what is signed."""
        policies = _checked(policies or Policies.of(settings))
        deliveries = delivery_store.StoredDeliveries(database, policies.claimed_for_s, policies.rule)
        self._database = database
        self._receivers = receivers.Receivers(vault)
        self._open_days = ClosedDays(database, clock, ledger) if ledger else None
        self._batching = policies.batching
        self._intake = Intake(deliveries, self._receivers, clock, _new_id, policies.batching.delivery_size)
        self._sender = _sender(settings, resolver)
        self._dispatch = Dispatch(
            deliveries,
            self._receivers,
            self._sender,
            clock=clock,
            present=present,
            jitter=random.SystemRandom().random,
            policy=policies.policy,
            limits=policies.limits,
            per_s=policies.per_s,
        )
        self._upkeep = Upkeep(
            *(database, clock, policies.rule, policies.keep_days), longest_wait_s=policies.longest_wait_s, spools=spools
        )
        self._committed: dict[tuple[str, int], int] = {}
        self._wake = asyncio.Event()
        self._draining = self._running = False
        self._idle = asyncio.Event()

    def apply(self, change: ConfigChange) -> None:
        """Take one step of the configuration feed."""
        self._receivers.apply(change)
        self._wake.set()

    def committed(self, topic: str, partition: int) -> int:
        """Return the first offset that is not yet taken in for good; 0 before `follow` has read the position."""
        return self._committed.get((topic, partition), 0)

    def register_metrics(self, telemetry: Telemetry) -> None:
        """Show what becomes of attempts and deliveries."""
        dispatch = self._dispatch
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
        outage = Outage(f"webhook intake of {partition.topic}", _log)
        await outage.ride_out(lambda: self._follow(partition, outage))

    async def run(self) -> None:
        """Deliver until `drain`. Call once; any error but an outage of the database ends it."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(loops.run("webhook redrive", self._upkeep.redrive())),
                    tasks.create_task(loops.run("webhook retention", self._upkeep.remove())),
                ]
                await self._run(tasks, Outage("webhook dispatch", _log))
                for task in beside:
                    task.cancel()
        finally:
            self._running = False
            self._idle.set()

    async def drain(self, timeout_s: float) -> bool:
        """Begin no more attempts, and wait until those in flight are settled; says whether they were in time.

        What is not settled in time is attempted again when its lease has ended.
        """
        self._draining = True
        self._wake.set()
        if not self._running:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        return self._idle.is_set()

    async def close(self) -> None:
        """Close the connections to receivers; `run` must have ended."""
        await self._sender.aclose()

    async def _follow(self, partition: EventSource, outage: Outage) -> None:
        topic, number = partition.topic, partition.index
        stored = await self._database.read(lambda connection: delivery_store.position(connection, topic, number))
        offset = partition.first_offset if stored is None else stored
        self._committed[topic, number] = offset

        async def process(batch: EventBatch) -> None:
            await self._intake.process(await self._open_days.only(batch) if self._open_days else batch)
            self._committed[topic, number] = batch.next_offset
            self._wake.set()
            loops.turned(len(batch.events), rest_s=intake.IDLE_WAIT_S, waits_for="usage events")
            outage.passed()

        follower = intake.Follower(partition.read, partition.wait, process, batching=self._batching, offset=offset)
        while True:
            loops.turned(0, rest_s=intake.IDLE_WAIT_S, waits_for="usage events")
            await follower.step()

    async def _run(self, attempts: asyncio.TaskGroup, outage: Outage) -> None:
        while True:
            self._wake.clear()
            rest_s = await outage.ride_out(lambda: self._turn(attempts))
            if self._draining and self._dispatch.is_idle:
                return
            # Not wait_for: on Python 3.11 it loses a cancellation that comes with the wake (cpython 86296).
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await self._wake.wait()

    async def _turn(self, attempts: asyncio.TaskGroup) -> float:
        """Settle what has ended, begin what is due; return how long there is nothing to do, unless woken."""
        await self._dispatch.finish()
        if self._draining:
            return POLL_S
        claims, rest_s = await self._dispatch.claim()
        loops.turned(len(claims), rest_s=POLL_S, waits_for="deliveries that are due")
        for claim in claims:
            attempts.create_task(self._attempt(claim))
        return 0.0 if claims else min(POLL_S, POLL_S if rest_s is None else rest_s)

    async def _attempt(self, claim: Claim) -> None:
        await self._dispatch.attempt(claim)
        self._wake.set()


def _checked(policies: Policies) -> Policies:
    for line in policies.contradictions():
        _log.warning("%s", line)
    return policies


def _new_id() -> str:
    return str(uuid.uuid4())


def _sender(settings: Settings, resolver: guard.Resolver | None) -> sender.Sender:
    lookups = Lookups(share=settings.share_lookups)
    return sender.Sender(allow_private=settings.allow_private_receivers, resolver=resolver, lookups=lookups)
