"""How requests end, and what becomes of their connections: cancelled, closed early, nearly whole, kept."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

from proxy.core.calls import BrokenOffError, Failure
from proxy.upstream import bounds, connection
from proxy.upstream.pool import Upstreams
from tests.integration.proxy.tcp import DONE, Line, Received, TcpUpstream, piece
from tests.integration.proxy.upstream.kit import CHUNKED, HEAD, Caller, hung_up, rest, until

LARGE = 32 * 1024 * 1024
"""More than the buffers of a connection hold."""


@pytest.fixture(autouse=True)
def _the_rest_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what ends at once ends for another reason."""
    monkeypatch.setattr(connection, "REST_WITHIN_S", 1e9)


async def say_nothing(_received: Received, line: Line) -> None:
    await line.hung_up.wait()


async def cancelled(task: "asyncio.Task[object]") -> None:
    task.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_cancelling_ends_a_request_before_its_answer_begins(server: TcpUpstream, caller: Caller) -> None:
    server.play = say_nothing
    asking = asyncio.create_task(caller.open())
    await until(lambda: server.received)
    await cancelled(asking)
    await hung_up(server)
    await until(lambda: not caller.connections)


async def test_cancelling_frees_a_body_that_was_not_sent_yet(caller: Caller) -> None:
    accepted = asyncio.Event()
    ended = asyncio.Event()

    async def never_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(never_read, "127.0.0.1", 0, limit=1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    body = bytes(LARGE)
    held_before = sys.getrefcount(body)
    asking = asyncio.create_task(caller.open(body, url))
    async with asyncio.timeout(20):
        await accepted.wait()
    await until(lambda: caller.connections[0]._waiter)
    assert sys.getrefcount(body) > held_before
    await cancelled(asking)
    del asking
    await until(lambda: not caller.connections)
    await until(lambda: sys.getrefcount(body) == held_before)
    ended.set()
    server.close()


async def test_cancelling_ends_a_request_whose_answer_is_read(server: TcpUpstream, caller: Caller) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.begin_stream()
        await line.chunk(piece("hello"))
        await line.hung_up.wait()

    server.play = play
    answer = await caller.answer()
    reading = asyncio.create_task(rest(answer))
    await until(lambda: caller.connections[0]._waiter)
    await cancelled(reading)
    await answer.close()
    await hung_up(server)
    await until(lambda: not caller.connections)


async def test_closing_wakes_whoever_reads(server: TcpUpstream, caller: Caller) -> None:
    """So that a deadline may end a request without its task being cancelled."""
    server.play = say_after_head
    answer = await caller.answer()
    reading = asyncio.create_task(answer.read_chunk())
    await until(lambda: caller.connections[0]._waiter)
    await answer.close()
    async with asyncio.timeout(20):
        with pytest.raises(BrokenOffError):
            await reading
    with pytest.raises(BrokenOffError):
        await answer.read_chunk()
    await answer.close()
    await hung_up(server)


async def say_after_head(_received: Received, line: Line) -> None:
    await line.begin_stream()
    await line.hung_up.wait()


# --- nearly whole -----------------------------------------------------------------------------------------------------


class LateEnd:
    """A stream that says all there is to say, and ends when it is told to."""

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.more = b""

    async def __call__(self, _received: Received, line: Line) -> None:
        await line.begin_stream()
        await line.chunk(piece("hello") + DONE)
        await self.end.wait()
        self.end.clear()
        if self.more:
            await line.chunk(self.more)
        await line.end_stream()


async def read_until_done(caller: Caller) -> None:
    answer = await caller.answer()
    got = b""
    while not got.endswith(DONE):
        got += await answer.read_chunk() or b""
    answer.expect_end()
    await answer.close()


async def test_a_stream_that_ends_a_moment_after_its_last_event_keeps_its_connection(
    server: TcpUpstream, caller: Caller
) -> None:
    late = server.play = LateEnd()
    late.more = b": a comment\n\n"
    for _ in range(3):
        await read_until_done(caller)
        assert not caller.kept
        late.end.set()
        await until(lambda: caller.kept)
    assert server.connections == 1


async def test_a_stream_that_does_not_end_after_its_last_event_is_ended(
    server: TcpUpstream, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "REST_WITHIN_S", 0.0)
    server.play = LateEnd()
    await read_until_done(caller)
    await until(lambda: not caller.connections)


async def test_a_stream_that_goes_on_after_its_last_event_is_ended(server: TcpUpstream, caller: Caller) -> None:
    late = server.play = LateEnd()
    late.more = bytes(bounds.MAX_BUFFERED_BYTES + 1)
    await read_until_done(caller)
    late.end.set()
    await until(lambda: not caller.connections)


async def test_a_stream_that_is_closed_before_its_end_is_ended_at_once(server: TcpUpstream, caller: Caller) -> None:
    server.play = say_after_head
    answer = await caller.answer()
    await answer.close()
    await hung_up(server)


# --- kept -------------------------------------------------------------------------------------------------------------


async def test_a_connection_that_is_kept_too_long_is_ended(
    server: TcpUpstream, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "KEEP_S", 0.0)
    await caller.whole()
    await until(lambda: not caller.connections)
    await caller.whole()
    assert server.connections == 2


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}x",
    ],
    ids=["close", "HTTP/1.0", "two answers", "the beginning of a second", "what is no HTTP"],
)
async def test_a_connection_that_must_not_be_used_again(wire: bytes, server: TcpUpstream, caller: Caller) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.raw(wire)

    server.play = play
    for _ in range(2):
        assert await caller.whole() == b"{}"
    assert server.connections == 2


@pytest.mark.parametrize("wire", [b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad", b"\r\n"])
async def test_what_comes_unasked_is_no_answer_to_the_next_request(
    wire: bytes, server: TcpUpstream, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "KEEP_S", 1e9)
    await caller.whole()
    await server.lines[0].raw(wire)
    await until(lambda: not caller.connections)
    assert await caller.whole() != b"bad"
    assert server.connections == 2


async def test_an_upstream_that_answers_before_it_has_read_the_request(caller: Caller) -> None:
    ended = asyncio.Event()

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD.replace(b"200 OK", b"413 Too Large") + b"content-length: 2\r\n\r\n{}")
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0, limit=1024)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    answer = await caller.open(bytes(LARGE), url)
    assert not isinstance(answer, Failure)
    assert (answer.status, await rest(answer)) == (413, [b"{}"])
    await answer.close()
    assert not caller.kept
    ended.set()
    server.close()


async def test_two_requests_at_once_have_a_connection_each_and_the_newer_is_used_first(
    server: TcpUpstream, caller: Caller
) -> None:
    first, second = await caller.answer(), await caller.answer()
    for answer in (first, second):
        await rest(answer)
        await answer.close()
    await caller.whole()
    assert [received.connection for received in server.received] == [1, 2, 2]


# --- waits, and how many there may be ---------------------------------------------------------------------------------


@pytest.fixture
async def narrow(server: TcpUpstream) -> AsyncIterator[Caller]:
    """A caller with little patience and little room."""
    upstreams = Upstreams(
        allow_private=True,
        connect_timeout_s=5,
        read_timeout_s=0.05,
        max_connections=2,
        max_connections_of_origin=1,
    )
    yield Caller(upstreams, f"{server.base_url}/chat/completions")
    await upstreams.close()


async def test_a_head_that_does_not_come(server: TcpUpstream, narrow: Caller) -> None:
    server.play = say_nothing
    assert await narrow.open() is Failure.TOO_SLOW
    await hung_up(server)


async def test_a_pause_that_is_too_long(server: TcpUpstream, narrow: Caller) -> None:
    server.play = say_after_head
    answer = await narrow.answer()
    with pytest.raises(BrokenOffError, match=r"nothing came"):
        await answer.read_chunk()
    await answer.close()
    await hung_up(server)


async def test_only_waits_are_bounded_not_what_their_reader_does_between_them(
    server: TcpUpstream, narrow: Caller
) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.raw(CHUNKED + b"2\r\n{}\r\n")
        await line.end_stream()

    server.play = play
    answer = await narrow.answer()
    (held,) = narrow.connections
    await until(lambda: held.complete)
    deadlines = narrow.upstreams._deadlines
    began = deadlines.now
    await until(lambda: deadlines.now - began > 0.3)  # several ticks
    assert b"".join(await rest(answer)) == b"{}"
    await answer.close()


async def test_no_more_connections_than_there_may_be(server: TcpUpstream, narrow: Caller) -> None:
    other = f"http://127.0.0.2:{server.port}/v1"
    third = f"http://127.0.0.3:{server.port}/v1"
    answer = await narrow.answer()
    assert await narrow.open() is Failure.NO_ROOM, "its origin has as many as it may"
    assert await narrow.open(url=other) is Failure.UNREACHABLE
    assert len(narrow.connections) == 1, "what could not be made has a place"
    await rest(answer)
    await answer.close()
    assert await narrow.open(url=third) is Failure.UNREACHABLE
    assert server.connections == 1


async def test_a_kept_connection_gives_way_to_another_origins(caller: Caller, server: TcpUpstream) -> None:
    async with TcpUpstream() as second, TcpUpstream(say_nothing) as third:
        upstreams = Upstreams(allow_private=True, connect_timeout_s=5, read_timeout_s=20, max_connections=2)
        crowded = Caller(upstreams, f"{server.base_url}/chat/completions")
        await crowded.whole()
        waiting = asyncio.create_task(crowded.open(url=f"{third.base_url}/chat/completions"))
        await until(lambda: third.received)
        assert len(crowded.connections) == 2
        answer = await crowded.open(url=f"{second.base_url}/chat/completions")
        assert not isinstance(answer, Failure)
        await hung_up(server)
        assert await crowded.open() is Failure.NO_ROOM
        await answer.close()
        waiting.cancel()
        await asyncio.wait({waiting})
        await upstreams.close()


async def test_closing_ends_all_there_is(server: TcpUpstream, caller: Caller) -> None:
    await caller.whole()
    server.play = say_nothing
    asking = [asyncio.create_task(caller.open()) for _ in range(3)]
    await until(lambda: len(server.received) == 4)
    await caller.upstreams.close()
    async with asyncio.timeout(20):
        assert await asyncio.gather(*asking) == [Failure.BROKE_OFF] * 3
    assert not caller.connections
