"""What every `Upstream` adapter must do: the scripted one of the flow's tests, and the real one over TCP."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from proxy.core.calls import BrokenOffError, Failure, UpstreamRequest
from proxy.ports import Upstream
from proxy.reading import Answer
from proxy.upstream.pool import Upstreams
from tests.integration.proxy.tcp import Line, Play, Received, TcpUpstream
from tests.unit.proxy.kit import ScriptedUpstream, Step

BODY = b'{"model":"their-model"}'


class Stage:
    """An upstream, and ways to say what it does next."""

    upstream: Upstream
    url = "https://up.example/v1/chat/completions"
    answers: Callable[[bytes, int, str], None]
    """With a body, a status and a content type."""
    streams: Callable[[list[bytes], asyncio.Event | None], None]
    """These pieces, each but the first when the event has been set anew; None: it breaks off after them."""
    breaks_off: Callable[[], None]
    is_away: Callable[[], Awaitable[None]]
    bodies: Callable[[], list[bytes]]


def scripted() -> Stage:
    upstream = ScriptedUpstream()
    stage = Stage()
    stage.upstream = upstream
    stage.answers = lambda body, status, type_: upstream.answers(body, status=status, content_type=type_)

    def streams(pieces: list[bytes], turn: asyncio.Event | None) -> None:
        steps: list[Step] = list(pieces)
        upstream.streams(*steps, *([] if turn else [BrokenOffError("gone")]))

    async def is_away() -> None:
        upstream.fails(Failure.UNREACHABLE)

    stage.streams = streams
    stage.breaks_off = lambda: upstream.fails(Failure.BROKE_OFF)
    stage.is_away = is_away
    stage.bodies = lambda: [request.body[:] for request in upstream.requests]
    return stage


def over_tcp(server: TcpUpstream, upstream: Upstreams) -> Stage:
    async def break_off(_received: Received, line: Line) -> None:
        line.break_off()

    async def is_away() -> None:
        await server.__aexit__(None, None, None)

    stage = Stage()
    stage.upstream = upstream
    stage.url = f"{server.base_url}/chat/completions"
    stage.answers = lambda body, status, type_: setattr(server, "play", answering(body, status, type_))
    stage.streams = lambda pieces, turn: setattr(server, "play", streaming(pieces, turn))
    stage.breaks_off = lambda: setattr(server, "play", break_off)
    stage.is_away = is_away
    stage.bodies = lambda: [received.body for received in server.received]
    return stage


def answering(body: bytes, status: int, content_type: str) -> Play:
    async def play(_received: Received, line: Line) -> None:
        await line.answer(body, status, [("content-type", content_type)])

    return play


def streaming(pieces: list[bytes], turn: asyncio.Event | None) -> Play:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        for piece in pieces:
            await line.chunk(piece)
            if turn is not None:
                await turn.wait()
                turn.clear()
        if turn is None:
            line.break_off()
        else:
            await line.end_stream()

    return play


@pytest.fixture(params=["scripted", "TCP"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param == "scripted":
        yield scripted()
        return
    async with TcpUpstream() as server:
        upstreams = Upstreams(allow_private=True, connect_timeout_s=5, read_timeout_s=5)
        yield over_tcp(server, upstreams)
        await upstreams.close()


async def call(stage: Stage) -> Answer | Failure:
    return await stage.upstream.open(UpstreamRequest(stage.url, BODY, "request-1", None))


async def answer(stage: Stage) -> Answer:
    opened = await call(stage)
    assert not isinstance(opened, Failure)
    return opened


async def rest(answer: Answer) -> bytes:
    pieces = []
    while (piece := await answer.read_chunk()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("status", [200, 302, 404, 500])
async def test_an_answer_of_any_status(stage: Stage, status: int) -> None:
    stage.answers(b'{"a":1}', status, "application/json")
    got = await answer(stage)
    assert got.status == status
    assert got.headers == [(b"content-type", b"application/json")]
    assert not got.is_event_stream
    assert await rest(got) == b'{"a":1}'
    await got.close()
    assert stage.bodies() == [BODY]


@pytest.mark.parametrize(
    ("content_type", "is_stream"),
    [
        ("text/event-stream", True),
        ("text/event-stream; charset=utf-8", True),
        ("application/json", False),
        ("text/plain", False),
    ],
)
async def test_what_is_an_event_stream(stage: Stage, content_type: str, *, is_stream: bool) -> None:
    stage.answers(b"", 200, content_type)
    got = await answer(stage)
    assert got.is_event_stream is is_stream
    await got.close()


async def test_each_piece_is_there_before_the_next_is_sent(stage: Stage) -> None:
    turn = asyncio.Event()
    stage.streams([b"one", b"two", b"three"], turn)
    got = await answer(stage)
    for piece in (b"one", b"two", b"three"):
        assert await got.read_chunk() == piece
        turn.set()
    assert await got.read_chunk() is None
    await got.close()


async def test_an_answer_that_breaks_off(stage: Stage) -> None:
    stage.streams([b"one"], None)
    got = await answer(stage)
    with pytest.raises(BrokenOffError):
        await rest(got)
    await got.close()


async def test_an_upstream_that_breaks_off_before_its_answer(stage: Stage) -> None:
    stage.breaks_off()
    assert await call(stage) is Failure.BROKE_OFF
    assert stage.bodies() == [BODY], "a request that was sent must not be sent again"


async def test_an_upstream_that_is_away(stage: Stage) -> None:
    await stage.is_away()
    assert await call(stage) is Failure.UNREACHABLE


async def test_an_answer_may_be_closed_before_its_end(stage: Stage) -> None:
    stage.streams([b"one", b"two"], asyncio.Event())
    got = await answer(stage)
    assert await got.read_chunk() == b"one"
    await got.close()
