"""Wires the dispatcher: store, sender and receivers into intake and dispatch, and keeps both going.

Never swallows an error: an outage of the database is ridden out and logged once, anything else ends the task.
"""

import asyncio
import contextlib
import logging
import random
import uuid
from datetime import datetime, timedelta

from runtime import guard
from runtime.clock import Clock
from runtime.database import Database
from runtime.outage import Outage
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.config import ConfigChange
from schemas.topics import UsageBatch
from webhooks import intake, receivers, sender, store
from webhooks.core.batching import Batching
from webhooks.core.fairness import Limits
from webhooks.core.retry import Policy
from webhooks.core.values import Claim
from webhooks.flow import Dispatch, Intake, Partition

READ_LIMIT = 1000
"""Events of one partition in one transaction of intake."""

POLL_S = 0.5
"""How long dispatch rests at most: what other processes queue, and receivers that change, are seen by then."""

_LEASE_MARGIN_S = 20.0
_log = logging.getLogger(__name__)


class Dispatcher:
    """Takes usage events in and delivers them.

    Feed it the configuration with `apply` before `follow` begins: deliveries cut earlier would be `not_due`.
    """

    def __init__(
        self,
        database: Database,
        vault: Vault,
        clock: Clock,
        settings: Settings,
        *,
        policy: Policy | None = None,
        limits: Limits | None = None,
        resolver: guard.Resolver | None = None,
    ) -> None:
        policy = policy or Policy()
        deliveries = store.StoredDeliveries(database, policy.attempt_timeout_s + _LEASE_MARGIN_S)
        self._database = database
        self._receivers = receivers.Receivers(vault)
        self._clock = clock
        self._batching = Batching(
            settings.webhook_batch_size, timedelta(milliseconds=settings.webhook_linger_ms), READ_LIMIT
        )
        self._intake = Intake(
            deliveries, self._receivers, clock, lambda: str(uuid.uuid4()), settings.webhook_batch_size
        )
        self._sender = sender.Sender(allow_private=settings.allow_private_receivers, resolver=resolver)
        self._dispatch = Dispatch(
            deliveries,
            self._receivers,
            self._sender,
            clock=clock,
            jitter=random.SystemRandom().random,
            policy=policy,
            limits=limits or Limits(),
        )
        self._committed: dict[tuple[str, int], int] = {}
        self._wake = asyncio.Event()
        self._draining = False
        self._running = False
        self._idle = asyncio.Event()

    def apply(self, change: ConfigChange) -> None:
        """Take one step of the configuration feed."""
        self._receivers.apply(change)
        self._wake.set()

    def committed(self, topic: str, partition: int) -> int:
        """Give the first offset that is not yet taken in for good; 0 before `follow` has read the position."""
        return self._committed.get((topic, partition), 0)

    async def take_over(self) -> None:
        """Free what a dispatcher that died had claimed. Only where no other can be running on this database."""
        freed = await self._database.write(store.free_claims)
        if freed:
            _log.warning("%d deliveries were under way when the last process died; they are attempted again", freed)

    async def follow(self, partition: Partition) -> None:
        """Take in one partition, for ever. May be cancelled at any moment: nothing is lost or taken in twice.

        Raises PositionLostError where another worker has taken the partition over.
        """
        outage = Outage(f"webhook intake of {partition.topic}", _log)
        await outage.ride_out(lambda: self._follow(partition, outage))

    async def run(self) -> None:
        """Deliver until `drain`. Call once; any error but an outage of the database ends it."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as attempts:
                await self._run(attempts, Outage("webhook dispatch", _log))
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
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        return self._idle.is_set()

    async def close(self) -> None:
        """Close the connections to receivers; `run` must have ended."""
        await self._sender.aclose()

    async def _follow(self, partition: Partition, outage: Outage) -> None:
        topic, number = partition.topic, partition.partition
        stored = await self._database.read(lambda connection: store.position(connection, topic, number))
        offset = partition.first_offset if stored is None else stored
        self._committed[topic, number] = offset

        async def process(batch: UsageBatch) -> None:
            await self._intake.process(batch)
            self._committed[topic, number] = batch.next_offset
            self._wake.set()
            outage.passed()

        follower = intake.Follower(
            partition.read, partition.wait, process, clock=self._clock, batching=self._batching, offset=offset
        )
        while True:
            await follower.step()

    async def _run(self, attempts: asyncio.TaskGroup, outage: Outage) -> None:
        while True:
            self._wake.clear()
            rest_s = await outage.ride_out(lambda: self._turn(attempts))
            if self._draining and self._dispatch.is_idle:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), rest_s)

    async def _turn(self, attempts: asyncio.TaskGroup) -> float:
        """Settle what has ended, begin what is due; give how long there is nothing to do, unless woken."""
        await self._dispatch.settle()
        if self._draining:
            return POLL_S
        claims, next_due_at = await self._dispatch.claim()
        for claim in claims:
            attempts.create_task(self._attempt(claim))
        return 0.0 if claims else self._rest_s(next_due_at)

    async def _attempt(self, claim: Claim) -> None:
        await self._dispatch.attempt(claim)
        self._wake.set()

    def _rest_s(self, next_due_at: datetime | None) -> float:
        if next_due_at is None:
            return POLL_S
        return min(POLL_S, max(0.0, (next_due_at - self._clock()).total_seconds()))
