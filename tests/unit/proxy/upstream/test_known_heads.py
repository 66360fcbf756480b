"""What is known again of an answer's head is read as the parser reads it, and nothing else is."""

import asyncio
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.bounds import read_buffer
from proxy.upstream.connection import UpstreamConnection
from proxy.upstream.known_heads import KnownHeads
from runtime.deadlines import Deadlines
from runtime.turns import Turns
from tests.support import altered as one_place

HEAD = (
    b"HTTP/1.1 200 OK\r\nDate: %b\r\ncontent-type: application/json\r\nX-Id: %b\r\n"
    b"Content-length:  %d\r\nConnection: keep-alive\r\n\r\n"
)
LEARNED_AFTER = 2


class Owner:
    """Who makes one connection."""

    def __init__(self, known: KnownHeads | None = None) -> None:
        self.known = known or KnownHeads()
        self.kept = 0

    def keep(self, _: UpstreamConnection) -> None:
        self.kept += 1

    def forget(self, _: UpstreamConnection) -> None:
        """Know nothing of it."""


class NeverKnown(KnownHeads):
    """So that the parser reads everything."""

    def body(self, data: memoryview) -> bytes | None:
        return None


class Wire:
    """A connection's transport, to which nothing is sent."""

    aborted = False

    def write(self, data: bytes) -> None:
        """Send nothing."""

    def is_closing(self) -> bool:
        return self.aborted

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted = True


class Caller:
    """One connection, and what came of each answer on it."""

    def __init__(self, known: KnownHeads) -> None:
        self.owner, self.wire, self.buffer = Owner(known), Wire(), read_buffer()
        deadlines = Deadlines()
        self.connection = UpstreamConnection(self.owner, "a", deadlines, self.buffer, 60, turns=Turns())
        deadlines._timer = cast(Any, object())  # nothing is to be due
        self.connection.connection_made(cast(asyncio.Transport, self.wire))

    def answer(self, data: bytes) -> tuple[Any, ...]:
        connection = self.connection
        connection.send(b"POST / HTTP/1.1\r\n\r\n", b"")
        self.buffer[: len(data)] = data
        connection.buffer_updated(len(data))
        body = connection.take() if connection.status else b""
        headers = {name: value for name, value in connection.headers.items() if name != b"content-length"}
        came = (connection.status, headers, body, connection.complete, connection.problem is None, connection._reusable)
        connection.release()
        return (*came, self.owner.kept, self.wire.aborted)


def answer(body: bytes, date: bytes = b"Mon", id_: bytes = b"1", length: int | None = None) -> bytes:
    return HEAD % (date, id_, len(body) if length is None else length) + body


@st.composite
def altered(draw: st.DrawFn) -> bytes:
    """An answer as before, or one that differs somewhere."""
    body = draw(st.binary(max_size=40))
    text = st.sampled_from([b"", b"Tue, 2", b" x\t", b"\xff", b"\x7f", b"\x00", b"\r", b"\n", b"a\r\nb: c"])
    data = answer(body, draw(text), draw(text), draw(st.one_of(st.none(), st.integers(0, 45))))
    return one_place.altered(draw, data, [b"\r", b"\n", b"\r\n", b"0", b"9", b" ", b":", b"\x00", b"X-B: c\r\n"])


@given(st.lists(altered(), min_size=1, max_size=4))
def test_every_answer_is_read_as_the_parser_alone_reads_it(answers: list[bytes]) -> None:
    async def both() -> None:
        read, parsed = Caller(KnownHeads()), Caller(NeverKnown())
        for data in [answer(b"{}")] * LEARNED_AFTER + answers:
            came = read.answer(data)
            assert came == parsed.answer(data)
            if read.wire.aborted:
                break

    asyncio.run(both())


async def learned() -> Caller:
    caller = Caller(KnownHeads())
    for _ in range(LEARNED_AFTER):
        caller.answer(answer(b"{}"))
    caller.connection._parser = cast(Any, None)  # what is known takes no step of it
    return caller


@pytest.mark.parametrize(
    "data", [answer(b"{}"), answer(b'{"a":1}', b"Tue", b"2-\xff"), answer(b""), answer(bytes(30_000), b"")]
)
async def test_dates_ids_and_lengths_may_differ(data: bytes) -> None:
    caller = await learned()
    status, headers, body, *rest = caller.answer(data)
    assert (status, headers[b"content-type"], body) == (
        200,
        b"application/json",
        data.partition(b"\r\n\r\n")[2][:16384],
    )
    assert rest[:3] == [True, True, True]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (b"application/json", b"text/html"),
        (b"keep-alive", b"close"),
        (b"200 OK", b"201 OK"),
        (b"X-Id", b"X-Ie"),
        (b"1\r\n", b"1\r\nretry-after: 1\r\n"),
        (b"length:  2", b"length:  02"),
        (b"length:  2", b"length:  1"),
        (b"length:  2", b"length:  3"),
        (b"Date: Mon", b"Date: M\x00n"),
    ],
)
async def test_whatever_else_differs_is_the_parsers(was: bytes, now: bytes) -> None:
    caller = await learned()
    assert was in answer(b"{}")
    assert caller.owner.known.body(memoryview(answer(b"{}").replace(was, now))) is None


@pytest.mark.parametrize(
    "data",
    [
        answer(b"{}")
        .replace(b"Content-length:  2", b"transfer-encoding: chunked")
        .replace(b"{}", b"2\r\n{}\r\n0\r\n\r\n"),
        answer(b"{}").replace(b"keep-alive", b"close"),
        answer(b"{}").replace(b"200 OK", b"404 No"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(b"{}"),
    ],
)
async def test_what_is_no_plain_answer_is_never_learned(data: bytes) -> None:
    known = KnownHeads()
    for _ in range(4 * LEARNED_AFTER):
        assert Caller(known).answer(data)[2] == b"{}"
    assert known.body(memoryview(data)) is known.body(memoryview(answer(b"{}"))) is None
