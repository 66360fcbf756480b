"""Loops that go on, rest as they said, stand still and end."""

import asyncio
import logging

from runtime import loops
from runtime.loops import STILL_S, Loops
from runtime.outage import Outage
from runtime.telemetry.metrics import Telemetry
from tests.unit.webhooks.kit import HandClock


class Scene:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.loops = Loops(self.clock.seconds)
        self.loops.watch()
        self.steps: asyncio.Queue[tuple[int, float]] = asyncio.Queue()
        self.task = asyncio.create_task(loops.run("the follower", self._follow()))

    async def _follow(self) -> None:
        while True:
            did, rest_s = await self.steps.get()
            loops.turned(did, rest_s=rest_s, waits_for="events")
            self.steps.task_done()

    async def turn(self, did: int = 1, rest_s: float = 0.0) -> None:
        await self.steps.put((did, rest_s))
        await self.steps.join()


async def test_a_loop_that_turns_or_rests_as_announced_is_no_problem_and_one_that_does_not_is() -> None:
    scene = Scene()
    for rest_s in (0.0, 3600.0, 5.0):
        await scene.turn(rest_s=rest_s)
        scene.clock.move(rest_s + STILL_S)
        assert scene.loops.problem() is None
        scene.clock.move(1)
        assert scene.loops.problem() == (
            f"the follower stands still: it waits for events since {rest_s + STILL_S + 1:.0f} s"
        )
    await scene.turn()
    assert scene.loops.problem() is None
    scene.task.cancel()


async def test_a_loop_that_never_turns_is_seen() -> None:
    scene = Scene()
    await asyncio.sleep(0)
    scene.clock.move(STILL_S + 1)
    assert (scene.loops.problem() or "").startswith("the follower stands still: it waits for its first turn")
    scene.task.cancel()
    await asyncio.gather(scene.task, return_exceptions=True)
    assert (scene.loops.problem(), scene.loops.known) == (None, {})


async def test_what_it_waits_for_since_when_and_how_much_it_did_is_shown() -> None:
    scene = Scene()
    await scene.turn(7)
    scene.clock.move(20)
    await scene.turn(0)
    (one,) = scene.loops.known.values()
    assert (one.did, one.waits_for, one.since_s, one.due_at_s) == (7, "events", 0.0, 20.0)
    scene.clock.move(30)
    telemetry = Telemetry()
    scene.loops.register_metrics(telemetry)
    text = (await telemetry.text()).decode()
    assert 'tollgate_loop_done_total{loop="the follower"} 7.0' in text
    assert 'tollgate_loop_overdue_seconds{loop="the follower"} 30.0' in text
    assert "tollgate_loops_still 0.0" in text
    scene.task.cancel()


async def test_whoever_rides_out_an_outage_does_not_stand_still_and_says_what_for() -> None:
    clock, tries = HandClock(), 0
    known = Loops(clock.seconds)
    known.watch()

    async def pause(_: float) -> None:
        clock.move(STILL_S)
        assert known.problem() is None

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 5:
            raise OSError
        (one,) = known.known.values()
        assert one.waits_for == "the disk"

    outage = Outage("it", logging.getLogger(__name__), pause, of="the disk", passes=lambda e: isinstance(e, OSError))
    await asyncio.create_task(loops.run("it", outage.ride_out(work)))
    assert tries == 5


async def test_two_of_one_name_are_told_apart_and_parts_speak_for_themselves() -> None:
    known = Loops(HandClock().seconds)
    known.watch()

    async def parts() -> None:
        loops.has_parts()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(2):
                tasks.create_task(loops.run("part", ended.wait()))

    ended = asyncio.Event()
    whole = asyncio.create_task(loops.run("whole", parts()))
    while len(known.known) < 2 or "whole" in known.known:  # noqa: ASYNC110 (two turns of the event loop)
        await asyncio.sleep(0)
    assert list(known.known) == ["part", "part 2"]
    ended.set()
    await whole
    assert known.known == {}


async def test_outside_of_a_process_that_watches_nothing_is_kept() -> None:
    async def work() -> int:
        loops.turned()
        loops.has_parts()
        return 3

    assert await asyncio.create_task(loops.run("it", work())) == 3
