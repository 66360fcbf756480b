"""Whatever an upstream sends is bounded, each rule on a raw socket: heads, trailers, framing, interim answers."""

import asyncio
import socket
import struct

import pytest

from proxy.core.calls import BrokenOffError, Failure
from proxy.upstream import bounds, connection
from tests.integration.proxy.tcp import Line, Play, Received, TcpUpstream
from tests.integration.proxy.upstream.kit import CHUNKED, HEAD, Caller, hung_up, rest, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def sends(*pieces: bytes) -> Play:
    """Send these, one after the other, and nothing more."""

    async def play(_received: Received, line: Line) -> None:
        for piece in pieces:
            await line.raw(piece)

    return play


def never_ends(begin: bytes, more: bytes) -> Play:
    """Send the beginning, and then more of the same until the other side hangs up."""

    async def play(_received: Received, line: Line) -> None:
        await line.raw(begin)
        while True:  # until the other side has hung up
            await line.raw(more)
            await asyncio.sleep(0)

    return play


def headers(count: int) -> bytes:
    return b"".join(b"x-%d: y\r\n" % number for number in range(count))


NO_ANSWERS = {
    "a header line without end": never_ends(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1000),
    "a status line without end": never_ends(b"HTTP/1.1 200 ", b"y" * 1000),
    "a head of endless lines": never_ends(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 100),
    "a long head in one piece": sends(HEAD + b"x: " + b"y" * bounds.MAX_HEAD_BYTES + b"\r\n\r\n"),
    "blank lines before the head": never_ends(b"\r\n", b"\r\n" * 500),
    "a line too many": sends(HEAD + headers(bounds.MAX_HEADER_LINES) + b"\r\n"),
    "interim answers without end": never_ends(CONTINUE, CONTINUE),
    "an interim answer too many": sends(CONTINUE * (bounds.MAX_INTERIM_ANSWERS + 1) + OK),
    "lines of interim answers": sends((b"HTTP/1.1 103 Hints\r\n" + headers(20) + b"\r\n") * 8 + OK),
    "switching protocols": sends(b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nx"),
    "no such status": sends(b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n"),
    "no HTTP": sends(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "another transfer coding": sends(HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n"),
    "two framings": sends(HEAD + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n"),
    "two lengths": sends(HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
    "a negative length": sends(HEAD + b"content-length: -1\r\n\r\n"),
    "bare line feeds": sends(b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}"),
    "a folded header": sends(HEAD + b"x: a\r\n b\r\n\r\n"),
}

BROKEN_BODIES = {
    "a chunk extension without end": never_ends(CHUNKED + b"1;", b"x" * 1000),
    "a chunk size without end": never_ends(CHUNKED, b"0" * 1000),
    "a trailer line without end": never_ends(CHUNKED + b"1\r\nx\r\n0\r\nx: ", b"y" * 1000),
    "trailers without end": never_ends(CHUNKED + b"1\r\nx\r\n0\r\n", b"x: y\r\n"),
    "no chunk size": sends(CHUNKED + b"zz\r\n"),
    "a chunk that is longer than it says": sends(CHUNKED + b"1\r\nxyz\r\n"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_what_is_no_answer(name: str, server: TcpUpstream, caller: Caller) -> None:
    server.play = NO_ANSWERS[name]
    assert await caller.open() is Failure.BROKE_OFF
    await hung_up(server)
    assert len(server.received) == 1, "it was sent again"
    await until(lambda: not caller.connections)


@pytest.mark.parametrize("name", BROKEN_BODIES)
async def test_what_is_no_body(name: str, server: TcpUpstream, caller: Caller) -> None:
    server.play = BROKEN_BODIES[name]
    answer = await caller.answer()
    with pytest.raises(BrokenOffError):
        await rest(answer)
    await hung_up(server)
    await answer.close()
    await until(lambda: not caller.connections)


@pytest.mark.parametrize(
    "wire",
    [
        OK,
        CONTINUE * bounds.MAX_INTERIM_ANSWERS + OK,
        b"HTTP/1.1 200 OK\r\n" + headers(bounds.MAX_HEADER_LINES - 1) + b"content-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: " + b"y" * (bounds.MAX_HEAD_BYTES - 43) + b"\r\n\r\n{}",
        b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}",
        CHUNKED + b'2;name="value"\r\n{}\r\n0\r\nx-trailer: y\r\n\r\n',
    ],
    ids=["plain", "interim answers", "many lines", "a long head", "no reason", "extensions and trailers"],
)
@pytest.mark.parametrize("size", [1 << 20, 1000, 1], ids=["whole", "in pieces", "in bytes"])
async def test_what_is_just_allowed(wire: bytes, size: int, server: TcpUpstream, caller: Caller) -> None:
    if size == 1 and len(wire) > 5000:
        wire = OK  # 64 KiB byte by byte show nothing more
    pieces = [wire[start : start + size] for start in range(0, len(wire), size)]
    server.play = sends(*pieces)
    for _ in range(2):
        assert await caller.whole() == b"{}"
    assert server.connections == 1


async def test_an_upstream_that_always_has_more_is_read_no_further_than_somebody_takes(
    server: TcpUpstream, caller: Caller
) -> None:
    total = 8 * 1024 * 1024
    sent = asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        await line.raw(HEAD + b"content-length: %d\r\n\r\n" % total)
        for _ in range(total // 1024):
            await line.raw(b"x" * 1024)
        sent.set()

    server.play = play
    answer = await caller.answer()
    (held,) = caller.connections
    await until(lambda: held._paused)
    assert held.held <= bounds.MAX_BUFFERED_BYTES + bounds.READ_BYTES
    assert not sent.is_set()
    pieces = await rest(answer)
    assert sum(map(len, pieces)) == total
    assert max(map(len, pieces)) <= connection.PIECE_BYTES
    await answer.close()
    assert await caller.whole() is not None
    assert server.connections == 1


async def test_between_two_pieces_that_are_there_others_have_their_turn(server: TcpUpstream, caller: Caller) -> None:
    body = bytes(range(250)) * 200
    server.play = sends(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
    answer = await caller.answer()
    (held,) = caller.connections
    await until(lambda: held.complete)
    taken: list[bytes] = []
    while True:
        others: list[None] = []
        asyncio.get_running_loop().call_soon(others.append, None)
        piece = await answer.read_chunk()
        if piece is None:
            break
        assert others or not taken, "nobody else had his turn"
        taken.append(piece)
    assert b"".join(taken) == body
    await answer.close()


async def test_an_answer_without_a_length_is_whole_when_the_upstream_closes(
    server: TcpUpstream, caller: Caller
) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.raw(HEAD + b"\r\ndata: x\n\n")
        line.writer.close()

    server.play = play
    for _ in range(2):
        assert await caller.whole() == b"data: x\n\n"
    assert server.connections == 2


@pytest.mark.parametrize("head", [HEAD + b"content-length: 20\r\n\r\n", CHUNKED + b"14\r\n"])
async def test_an_answer_that_is_cut_is_not_whole(head: bytes, server: TcpUpstream, caller: Caller) -> None:
    async def play(_received: Received, line: Line) -> None:
        await line.raw(head + b"data: x\n\n")
        line.writer.close()

    server.play = play
    answer = await caller.answer()
    assert await answer.read_chunk() == b"data: x\n\n"
    with pytest.raises(BrokenOffError):
        await answer.read_chunk()
    await answer.close()


async def test_an_answer_without_a_length_is_not_whole_when_the_connection_is_reset(
    server: TcpUpstream, caller: Caller
) -> None:
    taken = asyncio.Event()

    async def play(_received: Received, line: Line) -> None:
        await line.raw(HEAD + b"\r\ndata: x\n\n")
        await taken.wait()
        at_once = struct.pack("ii", 1, 0)
        line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        line.break_off()

    server.play = play
    answer = await caller.answer()
    assert await answer.read_chunk() == b"data: x\n\n"
    taken.set()
    with pytest.raises(BrokenOffError):
        await answer.read_chunk()
    await answer.close()


async def test_a_trailer_is_no_header(server: TcpUpstream, caller: Caller) -> None:
    server.play = sends(CHUNKED + b"2\r\n{}\r\n0\r\nretry-after: 9\r\n\r\n")
    answer = await caller.answer()
    assert answer.headers == [(b"content-type", b"text/event-stream")]
    assert await rest(answer) == [b"{}"]
    await answer.close()
