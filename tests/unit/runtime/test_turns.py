"""Tests of the turns of what is always ready: counted in rounds of the event loop, on a clock that stands still."""

import asyncio

from runtime.turns import AT_LATEST_S, ROUNDS, Turns


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


def still_turns() -> Turns:
    """Return turns on a clock that stands still, so that rounds alone count."""
    return Turns(lambda: 0.0)


async def test_many_streams_that_are_always_ready_have_one_piece_in_a_few_rounds_together() -> None:
    """Forty streams do not make a request of twenty rounds wait for eight hundred pieces."""
    turns, pieces, done = still_turns(), list[int](), list[int]()
    streams = [asyncio.create_task(stream(number, turns, pieces)) for number in range(40)]
    await asyncio.sleep(0)
    await rounds(20, done, pieces)
    await cancel(streams)
    assert done == [20 // ROUNDS]


async def test_where_rounds_are_long_there_is_a_turn_in_each() -> None:
    """Those in the line have a share of a loop that is busy with others."""
    now = [0.0]
    turns, pieces = Turns(lambda: now[0]), list[int]()
    streams = [asyncio.create_task(stream(number, turns, pieces)) for number in range(5)]
    await asyncio.sleep(0)
    for _ in range(20):
        now[0] += AT_LATEST_S
        await asyncio.sleep(0)
    await cancel(streams)
    assert len(pieces) in (19, 20)


async def test_each_has_its_turn() -> None:
    """The line is first come, first served."""
    turns, pieces = still_turns(), list[int]()
    streams = [asyncio.create_task(stream(number, turns, pieces)) for number in range(5)]
    for _ in range(17 * ROUNDS):
        await asyncio.sleep(0)
    await cancel(streams)
    assert pieces[:15] == [0, 1, 2, 3, 4] * 3


async def test_one_that_is_cancelled_holds_nobody_up() -> None:
    """Those behind it go on, and the line moves again after it was empty."""
    turns = still_turns()
    first, second = (asyncio.create_task(turns.take()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    await turns.take()
    assert first.cancelled()


async def test_holders_go_on_in_turn_however_many_streams_each_has() -> None:
    """One stream beside forty of another holder has every second turn."""
    turns, pieces = still_turns(), list[int]()
    streams = [asyncio.create_task(stream(number, turns, pieces, "many")) for number in range(40)]
    streams.append(asyncio.create_task(stream(-1, turns, pieces, "one")))
    for _ in range(45 * ROUNDS):
        await asyncio.sleep(0)
    await cancel(streams)
    assert pieces[2:42].count(-1) == 20
    assert len(set(pieces[2:42])) == 21
