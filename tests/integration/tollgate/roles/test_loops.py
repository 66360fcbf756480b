"""Every background loop of every role is watched: stopped at whatever it waits for, it is named at `/readyz`."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from metering.topic import faust_consumer
from runtime import loops
from runtime.loops import STILL_S, Loops
from runtime.settings import Settings
from tests.unit.webhooks.kit import HandClock
from tollgate.roles import control, embedded, metering, process, proxy, webhooks
from tollgate.roles.process import Addresses, Process, Role

PATIENCE_S = 60.0
LONG_S = 15.0
"""A loop that rests longer is not waited for to turn again."""

Prepare = Callable[[Settings, ExitStack], Callable[[], Role]]


class Stop:
    """When loops are stopped, and when they may come to their end all the same."""

    def __init__(self) -> None:
        self.is_set = False
        self.ends = False


class Stoppable:
    """A loop's work that is not gone on with once all are stopped: what it waits for never came, nor a timeout."""

    def __init__(self, work: Awaitable[Any], stop: Stop) -> None:
        self._work = work
        self._stop = stop

    def __await__(self) -> Generator[Any, Any, Any]:
        inner = self._work.__await__()
        step: Callable[[], Any] = partial(next, inner)
        while True:
            try:
                waited = step()
            except StopIteration as end:
                return end.value
            try:
                yield waited
                step = partial(next, inner)
            except BaseException as error:  # noqa: BLE001 - the loop's own affair
                step = partial(inner.throw, error)
            while self._stop.is_set and not self._stop.ends:
                try:
                    yield from asyncio.get_running_loop().create_future()
                except asyncio.CancelledError as error:
                    step = partial(inner.throw, error)


class Scene:
    """A process of one role, with a clock for its loops that is moved by hand."""

    def __init__(self, watched: Loops, clock: HandClock, stop: Stop, ops: str) -> None:
        self.loops = watched
        self._clock = clock
        self._stop = stop
        self._ops = ops

    def names(self) -> list[str]:
        return sorted(re.sub(r"[0-9A-Z]{26}", "ID", name) for name in self.loops.known)

    async def ready(self) -> tuple[int, str]:
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            answer = await client.get(f"{self._ops}/readyz")
        return answer.status_code, answer.json().get("missing", {}).get("loops", "")

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110 (other tasks' doing)
                await asyncio.sleep(0.02)

    async def all_turn_again(self) -> None:
        """Move the clock a little; return when every loop that rests shortly was heard after that."""
        self._clock.move(1.0)
        short = [one for one in self.loops.known.values() if one.due_at_s - self._clock.seconds() < LONG_S]
        began_s = self._clock.seconds()
        await self.until(lambda: all(one.due_at_s >= began_s for one in short))

    def stop_all(self) -> None:
        self._stop.is_set = True
        latest_s = max(one.due_at_s for one in self.loops.known.values())
        self._clock.move(latest_s - self._clock.seconds() + STILL_S + 1)


def stoppable_getmany(stop: Stop) -> Callable[..., AsyncIterator[Any]]:
    """Return what Faust calls again and again in tasks of its own, which are not gone on with once all are stopped."""
    plain = faust_consumer._Consumer.getmany

    async def getmany(consumer: Any, timeout: float) -> AsyncIterator[Any]:  # noqa: ASYNC109 (Faust's signature)
        while stop.is_set and not stop.ends:  # noqa: ASYNC110 (another task's doing)
            await asyncio.sleep(0.02)
        async for one in plain(consumer, timeout):
            yield one

    return getmany


@asynccontextmanager
async def running(prepare: Prepare, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    clock, stop = HandClock(), Stop()
    plain = loops.run
    monkeypatch.setattr(loops, "run", lambda name, work: plain(name, Stoppable(work, stop)))
    monkeypatch.setattr(faust_consumer._Consumer, "getmany", stoppable_getmany(stop))
    monkeypatch.setattr(process, "Loops", lambda: Loops(clock.seconds))
    announced: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    with ExitStack() as closing:
        one = Process(settings, prepare(settings, closing)())
        serving = asyncio.create_task(one.serve(announced.set_result))
        waits: set[asyncio.Future[Any]] = {serving, announced}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        if serving.done():
            serving.result()
        try:
            yield Scene(one._loops, clock, stop, announced.result().ops)
        finally:
            stop.ends = True
            one._stopping.set()
            await serving


async def check(scene: Scene, *expected: str) -> None:
    """Every loop of `expected`, and no other, is known; they turn; stopped, each is named."""
    await scene.until(lambda: scene.names() == sorted(expected))
    await scene.all_turn_again()
    assert await scene.ready() == (200, "")
    scene.stop_all()
    for _ in range(3):  # what still turned would be heard meanwhile
        code, problem = await scene.ready()
        assert code == 503
        for name in scene.loops.known:
            assert f"{name} stands still: it waits for " in problem
    assert problem.count(" stands still: ") == len(expected)


DELIVERING = ("usage alerts", "webhook dispatch", "webhook redrive", "webhook retention")
ALWAYS = "the status"
CONFIGURED = (ALWAYS, "the reader of the configuration", "the configuration's fallback")


async def test_embedded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(embedded.prepare, settings, monkeypatch) as scene:
        await check(
            scene,
            ALWAYS,
            "the configuration's relay",
            "control's retention",
            "the console's reconciliation",
            "the requests that did not go well",
            "metering's retention",
            "the spool's upkeep",
            "the spool's trimming",
            "the limits' upkeep",
            *(
                f"{what} of {source}"
                for what in ("metering", "webhook intake")
                for source in ("spool/ID", "corrections")
            ),
            *DELIVERING,
        )


async def test_control(apart: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(control.prepare, apart, monkeypatch) as scene:
        topics = "the requests that did not go well", "the status of all processes", "the console's reconciliation"
        await check(scene, ALWAYS, "the clock", "the relay to Kafka", "control's retention", *topics)


async def test_proxy_metering_and_webhooks(apart: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    # They wait at their start for the configuration, which control writes.
    with ExitStack() as closing:
        relaying = Process(apart, control.prepare(apart, closing)())
        relay = asyncio.create_task(relaying.serve(lambda _: None))
        try:
            async with running(proxy.prepare, apart, monkeypatch) as scene:
                await check(
                    scene,
                    *CONFIGURED,
                    "the decisions",
                    "the spool's upkeep",
                    "the limits' upkeep",
                    "the publisher of spool/ID",
                    "the publisher of requests",
                    "the removal of published usage events",
                    "what is in flight near limits",
                    "what others have in flight",
                )
            monkeypatch.undo()
            async with running(metering.prepare, apart, monkeypatch) as scene:
                parts = ("stream", "group offsets", "lanes", "watchdog")
                await check(
                    scene,
                    *CONFIGURED,
                    "the clock",
                    "the ledger's days",
                    "metering's retention",
                    *(f"metering's {one}" for one in parts),
                )
            monkeypatch.undo()
            async with running(webhooks.prepare, apart, monkeypatch) as scene:
                lane = "webhook intake of usage.events.v1/0"
                await check(scene, *CONFIGURED, "the clock", "webhook intake", lane, *DELIVERING)
        finally:
            relaying._stopping.set()
            await relay
