"""Compressed answers take turns for each piece that they make of what had come: counted in rounds of the loop."""

import asyncio
import gzip
from typing import cast

from proxy.upstream.codings import PIECE_BYTES
from proxy.upstream.connection import Connection
from proxy.upstream.pool import HttpAnswer
from runtime.turns import ROUNDS, Turns

STREAMS, TURNS = 20, 5
BOMB = gzip.compress(bytes(PIECE_BYTES * TURNS * 4))


class Compressed:
    """A connection whose whole compressed answer has come in one read."""

    status = 200

    def __init__(self, turns: Turns) -> None:
        self.headers = {b"content-encoding": b"gzip"}
        self._turns = turns
        self._left = [BOMB]

    async def read(self) -> bytes | None:
        return self._left.pop() if self._left else None

    async def turn(self) -> None:
        await self._turns.take()


async def read(answer: HttpAnswer, pieces: list[int]) -> None:
    while (piece := await answer.read_chunk()) is not None:
        pieces.append(len(piece))


async def test_many_compressed_answers_have_one_piece_a_turn_together() -> None:
    """The first piece of each comes with its read; beyond that there is one for all of them."""
    turns, pieces = Turns(lambda: 0.0), list[int]()  # rounds alone count
    answers = [HttpAnswer(cast(Connection, Compressed(turns))) for _ in range(STREAMS)]
    reading = [asyncio.create_task(read(answer, pieces)) for answer in answers]
    for _ in range(TURNS * ROUNDS):
        await asyncio.sleep(0)
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    assert STREAMS < len(pieces) <= STREAMS + TURNS
