"""Deadlines are numbers; one timer walks them."""

import asyncio
import math

import pytest

from runtime import deadlines
from runtime.deadlines import Deadlines
from tests.unit.proxy.virtual_time import in_virtual_time


class Wait:
    """Notes when it was called overdue."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.rung = asyncio.Event()
        self.at: list[float] = []

    def overdue(self) -> None:
        self.at.append(asyncio.get_running_loop().time())
        self.due = math.inf
        self.rung.set()


def now_s() -> float:
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_each_is_told_once_at_most_a_tick_too_late() -> None:
    watched, began = Deadlines(), now_s()
    waits = [Wait(began + after) for after in (0.0, 0.05, 1.0, 7.3, math.inf)]
    for wait in waits:
        watched.watch(wait)
    await waits[3].rung.wait()
    assert [len(wait.at) for wait in waits] == [1, 1, 1, 1, 0]
    for wait, after in zip(waits, (0.0, 0.05, 1.0, 7.3), strict=False):
        assert after <= wait.at[0] - began <= after + deadlines.TICK_S + 1e-6
    watched.forget(waits[4])


@in_virtual_time
async def test_a_deadline_that_moves_is_told_when_it_stands() -> None:
    watched, began = Deadlines(), now_s()
    wait, other = Wait(began + 1), Wait(began + 0.5)
    watched.watch(wait)
    watched.watch(other)
    await other.rung.wait()
    wait.due = began + 3
    await wait.rung.wait()
    assert wait.at[0] - began == pytest.approx(3, abs=deadlines.TICK_S)


@in_virtual_time
async def test_what_is_forgotten_is_not_told_and_nothing_ticks_any_more() -> None:
    watched = Deadlines()
    wait = Wait(now_s() + 1)
    watched.watch(wait)
    watched.forget(wait)
    watched.forget(wait)
    await asyncio.sleep(5)
    assert not wait.at
    assert watched._timer is None
    watched.watch(wait)  # it begins anew, with the time of now
    assert watched.now == now_s()
    await wait.rung.wait()
    watched.forget(wait)


@in_virtual_time
async def test_one_that_fails_ends_no_others_watch() -> None:
    failed: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))

    class Bad(Wait):
        def overdue(self) -> None:
            super().overdue()
            raise ValueError("bad")

    watched = Deadlines()
    bad, good = Bad(now_s() + 1), Wait(now_s() + 2)
    watched.watch(bad)
    watched.watch(good)
    await good.rung.wait()
    assert [str(error) for error in failed] == ["bad"]
    watched.forget(bad)
    watched.forget(good)
