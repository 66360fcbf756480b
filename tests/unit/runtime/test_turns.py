"""Tests of the turns of what is always ready: counted in rounds of the event loop, never in time."""

import asyncio

from runtime.turns import Turns


async def rounds(count: int, done: list[int], pieces: list[int]) -> None:
    """Be a request that needs so many rounds of the event loop; note how many pieces others had meanwhile."""
    before = len(pieces)
    for _ in range(count):
        await asyncio.sleep(0)
    done.append(len(pieces) - before)


async def stream(name: int, turns: Turns, pieces: list[int], holder: str = "") -> None:
    """Be a stream that is always ready."""
    while True:
        await turns.take(holder)
        pieces.append(name)


async def cancel(tasks: list[asyncio.Task[None]]) -> None:
    """End tasks."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_many_streams_that_are_always_ready_have_one_piece_a_round_together() -> None:
    """Forty streams do not make a request of twenty rounds wait for eight hundred pieces."""
    turns, pieces, done = Turns(), list[int](), list[int]()
    streams = [asyncio.create_task(stream(number, turns, pieces)) for number in range(40)]
    await asyncio.sleep(0)
    await rounds(20, done, pieces)
    await cancel(streams)
    assert 0 < done[0] <= 20


async def test_each_has_its_turn() -> None:
    """The line is first come, first served."""
    turns, pieces = Turns(), list[int]()
    streams = [asyncio.create_task(stream(number, turns, pieces)) for number in range(5)]
    for _ in range(40):
        await asyncio.sleep(0)
    await cancel(streams)
    assert pieces[:15] == [0, 1, 2, 3, 4] * 3


async def test_one_that_is_cancelled_holds_nobody_up() -> None:
    """Those behind it go on, and the line moves again after it was empty."""
    turns = Turns()
    first, second = (asyncio.create_task(turns.take()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    await turns.take()
    assert first.cancelled()


async def test_holders_go_on_in_turn_however_many_streams_each_has() -> None:
    """One stream beside forty of another holder has every second turn."""
    turns, pieces = Turns(), list[int]()
    streams = [asyncio.create_task(stream(number, turns, pieces, "many")) for number in range(40)]
    streams.append(asyncio.create_task(stream(-1, turns, pieces, "one")))
    for _ in range(80):
        await asyncio.sleep(0)
    await cancel(streams)
    assert pieces[2:42].count(-1) == 20
    assert len(set(pieces[2:42])) == 21
