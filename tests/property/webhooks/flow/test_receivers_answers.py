"""Whatever receivers answer, the dispatcher goes on, and one that is well never waits more than 2 s (contract 5).

The real loop of dispatch and the real sender, over connections in memory, in time that jumps to what is due next.
"""

import asyncio
import logging
import ssl
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import httpcore
import hypothesis
import pytest
from hypothesis import strategies as st

from runtime.clock import Clock
from runtime.settings import Settings
from tests.property.webhooks.flow import wires
from tests.property.webhooks.flow.wires import Answer, End, Fault, Network
from tests.unit.proxy.virtual_time import VirtualLoop
from tests.unit.webhooks import kit
from webhooks import sender
from webhooks.core.deliveries import Prepared, Receiver, Status
from webhooks.core.retry import AttemptResult
from webhooks.flow import dispatch
from webhooks.flow.loops import DispatchLoop
from webhooks.policies import Policies
from webhooks.sender import HttpSender

TLS = ssl.create_default_context()
WELL = "well"
WELL_ANSWER = Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", End.CLOSED)
EVERY_S, FOR_S, MOST_S = 0.4, 20.0, 2.0
EACH = 2
"""Deliveries of each receiver, at once."""

AT_ONCE = 20
"""Receivers beside the one that is well: their first attempts leave room, or it would be known by nothing yet that they
are slow."""


class Watched:
    """The sender, and when the well receiver had its deliveries."""

    def __init__(self, inner: HttpSender, now: Clock) -> None:
        self._inner = inner
        self._now = now
        self.came: dict[str, datetime] = {}
        self.longest_s = 0.0

    async def send(self, prepared: Prepared) -> AttemptResult:
        began = self._now()
        try:
            outcome = await self._inner.send(prepared)
        finally:
            self.longest_s = max(self.longest_s, (self._now() - began).total_seconds())
        if prepared.workspace_id == WELL:
            assert outcome.status_code == 200
            self.came[prepared.headers["webhook-id"]] = self._now()
        return outcome


class Scene:
    """One dispatcher, the well receiver and some that are as they are."""

    def __init__(self, network: Network, of: Mapping[str, Answer]) -> None:
        loop = asyncio.get_running_loop()
        self._from_s = loop.time()
        policies = Policies.of(Settings())
        self.deliveries = kit.ListDeliveries(policies.claimed_for_s, policies.rule)
        self._names = [name for name in of if name != WELL]
        inner = HttpSender(allow_private=True, resolver=network.resolve, ssl_context=TLS, steady=loop.time)
        self.sender = Watched(inner, self.now)
        story = dispatch.Dispatch(
            self.deliveries,
            kit.FixedReceivers(**{name: _receiver(name, answer) for name, answer in of.items()}),
            self.sender,
            clock=self.now,
            present=self.now,
            steady=loop.time,
            jitter=lambda: 0.5,
            policy=policies.policy,
            limits=policies.limits,
        )
        self._wake = asyncio.Event()
        self._delivering = DispatchLoop(story, self._wake)

    def now(self) -> datetime:
        return kit.after(asyncio.get_running_loop().time() - self._from_s)

    async def put(self, name: str, *numbers: int) -> None:
        events = [kit.event(number, name, key=f"{name}-{number}") for number in numbers]
        drafts = [kit.draft(event.idempotency_key, event) for event in events]
        batch = kit.batch(*events, topic=f"{name}-{numbers[0]}")
        await self.deliveries.enqueue(drafts, [batch], self.now())
        self._wake.set()

    async def run(self) -> dict[str, float]:
        """Run until all is over; return how long each delivery of the well receiver took, in seconds."""
        put_at: dict[str, datetime] = {}
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self._delivering.run({}))
            for name in self._names:
                await self.put(name, *range(1, EACH + 1))
            for number in range(1, int(FOR_S / EVERY_S) + 1):
                put_at[f"{WELL}-{number}"] = self.now()
                await self.put(WELL, number)
                await asyncio.sleep(EVERY_S)
            assert not running.done()
            assert await self._delivering.drain(FOR_S)
        return {name: (self.sender.came[name] - at).total_seconds() for name, at in put_at.items()}


def _receiver(name: str, answer: Answer) -> Receiver:
    scheme = "https" if answer.tls else "http"
    return Receiver(f"{scheme}://{name}.example/hook", enabled=True, secrets=(kit.SECRET,))


def check(answers: Sequence[Answer]) -> None:
    """Throw the answers at a dispatcher; the well receiver is none the worse, and nothing ends."""
    of = {f"lab{number}": answer for number, answer in enumerate(answers)} | {WELL: WELL_ANSWER}
    network = Network({f"{name}.example": answer for name, answer in of.items()})

    async def whole() -> tuple[Scene, dict[str, float]]:
        scene = Scene(network, of)
        return scene, await scene.run()

    with pytest.MonkeyPatch.context() as patch, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        patch.setattr(httpcore, "AnyIOBackend", lambda: network)
        scene, took = runner.run(whole())
    assert max(took.values()) <= MOST_S
    policy = Policies().policy
    assert scene.sender.longest_s <= policy.attempt_timeout_s + sender._DRAIN_S + 0.1
    for delivery_id, kept in scene.deliveries.kept.items():
        name = kept.draft.workspace_id
        known = scene.deliveries.health.get(name, kit.WELL)
        assert kept.status in {Status.DELIVERED, Status.DEAD} or known.probe_at is not None or _waits(kept, scene)
        if any(attempt.status_code is not None and 200 <= attempt.status_code < 300 for attempt in kept.attempts):
            assert kept.status is Status.DELIVERED, delivery_id


def _waits(kept: Any, scene: Scene) -> bool:
    """Whether a delivery that is still pending is so by the rule: its run is not over yet."""
    began = kept.first_attempt_at
    bound = timedelta(seconds=Policies().policy.bound_s + Policies().policy.attempt_timeout_s)
    return began is None or began + bound >= kit.after(FOR_S)


def test_each_fault_alone() -> None:
    check([Answer(b"", end, tls, fault) for fault in Fault for end in (End.RESET,) for tls in (False, True)])


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Keep nothing of what is said of each dead letter: pytest would hold it all, with its traces."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("receivers", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_one_that_is_well_never_waits_for_those_that_are_not(receivers: int) -> None:
    thrown = 0

    def throw(answers: list[Answer]) -> None:
        nonlocal thrown
        thrown += len(answers)
        check(answers)

    examples = -(-receivers // AT_ONCE)
    given = hypothesis.given(st.lists(wires.answers(), min_size=AT_ONCE, max_size=AT_ONCE))
    hypothesis.settings(max_examples=examples)(given(throw))()
    assert thrown >= receivers
