"""Real receivers on TCP, a live partition, and a dispatcher on a SQLite file with shortened times."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Row, select

from domain.sources import EventBatch
from runtime import clock
from runtime.database.engines import Database
from runtime.http import server
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.config import ConfigChange, ConfigKind, SealedSecret, WebhookRecord
from schemas.usage import UsageEvent
from tests.support.engines import Place
from tests.unit.webhooks import kit
from webhooks.app import Dispatcher
from webhooks.closed_days import LedgerView
from webhooks.core.deliveries import Claim
from webhooks.core.fairness import AttemptLimits
from webhooks.core.health import Rule
from webhooks.core.retry import Policy
from webhooks.policies import Policies
from webhooks.store import tables

VAULT = Vault(bytes(32))
SHORT = Policy(
    bound_s=1.0,
    attempt_timeout_s=0.4,
    backoff_first_s=0.05,
    backoff_most_s=0.2,
    jitter_share=0.0,
    shortest_attempt_s=0.02,
)
PATIENT = replace(SHORT, bound_s=60.0)
"""For deliveries that are to arrive: a machine that stands still for a while gives none of them up."""
PATIENCE_S = 60.0

Answer = Callable[["Receiver", Any], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request as the receiver saw it."""

    at: float
    headers: dict[str, str]
    body: bytes
    query: str = ""

    @property
    def keys(self) -> list[str]:
        return [event["idempotencyKey"] for event in json.loads(self.body)["data"]["events"]]


class Receiver:
    """A lab's server: gives the answers it was told, the last one again and again."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.received: list[Received] = []
        self.peers: set[Any] = set()
        self.released = asyncio.Event()
        self.url = ""

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return  # its sender has given up: what came is no request
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.peers.add(scope["client"])
        now, query = asyncio.get_running_loop().time(), scope["query_string"].decode()
        self.received.append(Received(now, headers, body, query))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await answer(self, send)


def status(code: int, *headers: tuple[bytes, bytes], body: bytes = b"{}") -> Answer:
    async def answer(_receiver: Receiver, send: Any) -> None:
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": code, "headers": [length, *headers]})
        await send({"type": "http.response.body", "body": body})

    return answer


async def hang(receiver: Receiver, send: Any) -> None:
    """Take the request and say nothing until the test is over."""
    await receiver.released.wait()
    await status(200)(receiver, send)


def webhook(version: int, url: str | None, workspace_id: str, *, enabled: bool = True) -> ConfigChange:
    """Return the step of the configuration that sets a workspace's receiver."""
    sealed = SealedSecret(sealed=VAULT.seal(kit.SECRET, f"webhook:{workspace_id}"))
    record = WebhookRecord(workspace_id=workspace_id, url=url, enabled=enabled, secrets=(sealed,))
    return ConfigChange(version=version, kind=ConfigKind.WEBHOOK, id=workspace_id, record=record)


@contextlib.asynccontextmanager
async def serving(*answers: Answer) -> AsyncIterator[Receiver]:
    receiver = Receiver(*answers)
    listener = server.listen("127.0.0.1", 0)
    running = server.Server(receiver, listener, grace_s=1)
    run = asyncio.create_task(running.run_until_stopped())
    receiver.url = f"{server.address_of(listener)}/hook?lab=1"
    try:
        yield receiver
    finally:
        receiver.released.set()
        await server.stop_all([running], [run])


class LivePartition:
    """A partition over a list that grows."""

    def __init__(self, topic: str = kit.TOPIC) -> None:
        self.topic = topic
        self.index = 0
        self.lane = "lane"
        self.first_offset = 1
        self._events: list[UsageEvent] = []
        self._grown = asyncio.Condition()

    async def put(self, *events: UsageEvent) -> None:
        async with self._grown:
            self._events.extend(events)
            self._grown.notify_all()

    async def read(self, offset: int, limit: int) -> EventBatch:
        events = tuple(self._events[offset - 1 : offset - 1 + limit])
        return EventBatch(self.topic, self.index, "lane", offset, offset + len(events), events)

    async def wait(self, offset: int, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._grown:
                await self._grown.wait_for(lambda: len(self._events) >= offset)


@dataclass
class Scene:
    """A dispatcher at work."""

    database: Database
    dispatcher: Dispatcher
    partition: LivePartition
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    versions: int = 0

    def set_webhook(self, url: str | None, workspace_id: str = "ws", *, enabled: bool = True) -> None:
        self.versions += 1
        self.dispatcher.apply(webhook(self.versions, url, workspace_id, enabled=enabled))

    def deliveries(self) -> list[Row[Any]]:
        query = select(tables.DELIVERY).order_by(tables.DELIVERY.c.created_at)
        return list(self.database.read_now(lambda connection: connection.execute(query).all()))

    def statuses(self) -> list[str]:
        return [row.status for row in self.deliveries()]

    def attempts(self) -> list[tuple[int, int | None, str | None]]:
        query = select(tables.ATTEMPT).order_by(tables.ATTEMPT.c.delivery_id, tables.ATTEMPT.c.number)
        rows = self.database.read_now(lambda connection: connection.execute(query).all())
        return [(row.number, row.status_code, row.error) for row in rows]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when `holds`; fail at once where a task of the dispatcher has ended with an error."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                for task in self.tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

    async def until_at_rest(self) -> None:
        """Return when no attempt is under way and the dispatcher has found nothing that it may begin now."""
        dispatch, found_nothing = self.dispatcher._dispatch, asyncio.Event()
        claim = dispatch.claim

        async def watched() -> tuple[Sequence[Claim], float | None]:
            claims, rest_s = await claim()
            if not claims and not dispatch.in_flight:
                found_nothing.set()
            return claims, rest_s

        dispatch.claim = watched  # type: ignore[method-assign]
        self.dispatcher._wake.set()
        async with asyncio.timeout(PATIENCE_S):
            await found_nothing.wait()
        dispatch.claim = claim  # type: ignore[method-assign]

    async def until_statuses(self, *expected: str) -> None:
        await self.until(lambda: sorted(self.statuses()) == sorted(expected))


@contextlib.asynccontextmanager
async def dispatching(
    place: Place,
    *,
    policy: Policy = SHORT,
    limits: AttemptLimits | None = None,
    rule: Rule | None = None,
    ledger: LedgerView | None = None,
    now: clock.Clock | None = None,
    present: clock.Clock = clock.present,
    partition: LivePartition | None = None,
    batch_size: int = 100,
    per_s: int | None = None,
    opened: Database | None = None,
    allow_private: bool = True,
) -> AsyncIterator[Scene]:
    settings = Settings(
        webhook_linger_ms=20,
        webhook_batch_size=batch_size,
        webhook_rate_per_s=per_s,
        allow_private_receivers=allow_private,
        data_dir=place.folder,
    )
    with contextlib.ExitStack() as stack:
        used = opened or stack.enter_context(place.open())
        policies = replace(Policies.of(settings), policy=policy)
        policies = replace(policies, limits=limits or policies.limits, rule=rule or policies.rule)
        goes_by = now or clock.steady()
        dispatcher = Dispatcher(used, VAULT, goes_by, settings, policies=policies, ledger=ledger, present=present)
        scene = Scene(used, dispatcher, partition or LivePartition())
        scene.tasks = [
            asyncio.create_task(dispatcher.follow(scene.partition)),
            asyncio.create_task(dispatcher.run()),
        ]
        try:
            yield scene
        finally:
            for task in scene.tasks:
                task.cancel()
            await asyncio.gather(*scene.tasks, return_exceptions=True)
            await dispatcher.close()
