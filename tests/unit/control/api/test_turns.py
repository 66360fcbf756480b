"""Whose reads wait for whose."""

import asyncio

import pytest

from control.api import turns
from control.api.turns import ReadTurns
from control.core.refusals import OverloadedError, ShareExceededError


class Reads:
    """Work that goes on until it is let go, and says how many are at it."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.released = asyncio.Event()

    async def __call__(self, who: str) -> str:
        self.begun.append(who)
        await self.released.wait()
        return who


async def turned() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_workspace_reads_one_at_a_time_and_holds_up_nobody_else() -> None:
    taken, reads = ReadTurns(), Reads()
    waiting = [asyncio.create_task(taken.take("a", lambda: reads("a"))) for _ in range(8)]
    other = asyncio.create_task(taken.take("b", lambda: reads("b")))
    await turned()
    assert sorted(reads.begun) == ["a", "b"]
    reads.released.set()
    assert await other == "b"
    assert await asyncio.gather(*waiting) == ["a"] * 8


async def test_the_turn_of_a_client_that_left_lasts_until_its_read_has_ended() -> None:
    """The thread reads on."""
    taken, reads = ReadTurns(), Reads()
    first = asyncio.create_task(taken.take("a", lambda: reads("first")))
    await turned()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(taken.take("a", lambda: reads("second")))
    await turned()
    assert reads.begun == ["first"]
    reads.released.set()
    assert await second == "second"


async def test_who_waits_is_bounded_for_one_and_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "OF_ONE", 2)
    monkeypatch.setattr(turns, "AT_ONCE", 3)
    taken, reads = ReadTurns(), Reads()
    waiting = [asyncio.create_task(taken.take(who, lambda: reads("x"))) for who in ("a", "a", "b")]
    await asyncio.sleep(0)
    with pytest.raises(ShareExceededError, match="2 reads of this workspace"):
        await taken.take("a", lambda: reads("x"))
    with pytest.raises(OverloadedError, match="3 reads"):
        await taken.take("c", lambda: reads("x"))
    reads.released.set()
    await asyncio.gather(*waiting)
    assert await taken.take("c", lambda: reads("c")) == "c"


async def test_a_read_that_fails_gives_its_turn_back() -> None:
    taken = ReadTurns()

    async def fail() -> None:
        raise ValueError("broken")

    for _ in range(turns.OF_ONE + 1):
        with pytest.raises(ValueError, match="broken"):
            await taken.take("a", fail)
