"""An upstream that always has more leaves the event loop to others after each so many bytes or chunks."""

import asyncio
import itertools

import pytest

from proxy import turns
from proxy.core.exchange import Failure, UpstreamRequest
from proxy.turns import InTurns
from schemas.usage import Outcome
from tests.unit.proxy.bodies import ASKED, DONE, HELLO, STREAMED, USAGE
from tests.unit.proxy.kit import House


async def seen_by_another(house: House, body: bytes) -> list[int]:
    """Serve a request; return how much of it had been read at each turn that another task had meanwhile."""
    house.gateway._upstream = InTurns(house.upstream)
    client = house.client(body)
    answer = house.upstream.answer
    assert answer is not None
    total = len(answer._steps)
    seen = [0]

    async def watch() -> None:
        while True:
            seen.append(total - len(answer._steps))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    await house.serve(client)
    watching.cancel()
    assert client.status == 200
    return seen


@pytest.mark.parametrize(("chunk", "most"), [(HELLO, turns.TURN_CHUNKS), (HELLO.replace(b"hello", b"x" * 9000), 8)])
async def test_a_stream_that_is_always_ready(chunk: bytes, most: int) -> None:
    house = House()
    house.upstream.streams(*[chunk] * 1000, USAGE, DONE)
    seen = await seen_by_another(house, STREAMED)
    assert max(after - before for before, after in itertools.pairwise(seen)) <= most
    assert house.draft.outcome is Outcome.COMPLETE


async def test_a_plain_answer_that_is_always_ready() -> None:
    house = House()
    house.upstream.answers(b'{"model":"their-model"', *[b" "] * 1000, b"}")
    seen = await seen_by_another(house, ASKED)
    assert max(after - before for before, after in itertools.pairwise(seen)) <= turns.TURN_CHUNKS


async def test_a_failure_is_passed_on() -> None:
    house = House()
    house.upstream.fails(Failure.UNREACHABLE)
    asked = UpstreamRequest("https://up.example/v1/chat/completions", b"{}", "request-1", None)
    assert await InTurns(house.upstream).open(asked) is Failure.UNREACHABLE
