"""Receivers whose answers are data: connections in memory that say what they were told, when they were told."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import anyio.abc
import httpcore
from httpcore._backends.anyio import AnyIOStream
from hypothesis import strategies as st

SHORT_S, LONGEST_S = 0.05, 20.0
FOR_EVER_S = 1e9
"""Of virtual time: whoever waits so long is cancelled before."""


class End(Enum):
    """How a connection ends once all was said."""

    CLOSED = "closed"
    RESET = "reset"
    NEVER = "never"


class Fault(Enum):
    """Where it fails before anything is said."""

    LOOK_UP = "look-up"
    LOOK_UP_HANGS = "look-up hangs"
    REFUSED = "refused"
    CONNECT_HANGS = "connect hangs"
    WRITE = "write"
    UNFORESEEN = "unforeseen"


@dataclass(frozen=True)
class Answer:
    """What a receiver does with each connection."""

    said: bytes
    end: End
    tls: bool = False
    fault: Fault | None = None
    after_s: float = SHORT_S
    piece: int = 65536
    """How many bytes it says at once, each piece as late as the first."""


class Wire(anyio.abc.ByteStream):
    """The client's end of one connection."""

    extra_attributes: Mapping[Any, Any] = {}

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._left = b""

    async def send(self, item: bytes) -> None:
        match self._answer.fault:
            case Fault.WRITE:
                raise anyio.BrokenResourceError
            case Fault.UNFORESEEN:
                raise OverflowError("what no library is known to raise here")
        self._left = self._answer.said

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await asyncio.sleep(self._answer.after_s)
        if self._left:
            size = min(max_bytes, self._answer.piece)
            said, self._left = self._left[:size], self._left[size:]
            return said
        match self._answer.end:
            case End.CLOSED:
                raise anyio.EndOfStream
            case End.RESET:
                raise anyio.BrokenResourceError
            case End.NEVER:
                await asyncio.sleep(FOR_EVER_S)
        raise AssertionError("a wait without an end has ended")

    async def send_eof(self) -> None:
        """Nobody asks for it."""

    async def aclose(self) -> None:
        """Nothing is held."""


class Network(httpcore.AsyncNetworkBackend):
    """Connects to the answers by address; httpcore's own stream makes of a wire's errors what it does of a socket's."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = answers

    async def connect_tcp(self, host: str, *_arguments: Any, **_named: Any) -> httpcore.AsyncNetworkStream:
        answer = self._answers[host]
        match answer.fault:
            case Fault.REFUSED:
                raise httpcore.ConnectError("connection refused")
            case Fault.CONNECT_HANGS:
                await asyncio.sleep(FOR_EVER_S)
        return AnyIOStream(Wire(answer))

    async def resolve(self, host: str, _port: int) -> list[str]:
        """Return the one address of a name: the guard's `Resolver`."""
        match self._answers[host].fault:
            case Fault.LOOK_UP:
                raise OSError("no such name")
            case Fault.LOOK_UP_HANGS:
                await asyncio.sleep(FOR_EVER_S)
        return [host]


_DATES = st.one_of(
    st.sampled_from(
        [
            "Fri, 31 Dec 9999 23:59:59 -0100",
            "Mon, 01 Jan 0001 00:00:00 +2359",
            "Thu, 01 Jan 1970 00:00:00 GMT",
            "Thu, 32 Jan 2026 25:61:61 GMT",
            "Thu Jan  1 00:00:20 2026",
            "Thursday, 01-Jan-26 00:00:20 GMT",
        ]
    ),
    st.builds(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} {}".format,
        st.sampled_from(["Mon", "Fri", "Xyz"]),
        st.integers(0, 32),
        st.sampled_from(["Jan", "Feb", "Dec", "Foo"]),
        st.integers(0, 9999),
        st.integers(0, 25),
        st.integers(0, 61),
        st.integers(0, 61),
        st.sampled_from(["GMT", "UTC", "+0000", "-0100", "+2400", "-9999", "EST", ""]),
    ),
)
_RETRY_AFTER = st.one_of(
    _DATES,
    st.integers(-(10**30), 10**30).map(str),
    st.integers(0, 20).map(str),
    st.sampled_from(["", "soon", "1.5", "1e400", "0x10", "٣", "NaN", "1_000", "+5", "5, 6"]),
)
_TEXTS = st.text(st.characters(codec="latin-1"), max_size=20)
_NAMES = st.sampled_from(
    ["Date", "Location", "Connection", "Transfer-Encoding", "Content-Encoding", "X-Odd", "Upgrade"]
)
_STATUSES = st.one_of(
    st.sampled_from([200, 204, 301, 400, 401, 404, 408, 410, 413, 429, 500, 503, 599, 600, 999]),
    st.integers(-1, 1000),
)


@st.composite
def _said(draw: st.DrawFn) -> bytes:
    body = draw(st.binary(max_size=30))
    length = draw(st.sampled_from([str(len(body)), "0", "1000000", "-1", "chunked", "none", "9" * 40]))
    headers = [("Retry-After", draw(_RETRY_AFTER))] if draw(st.booleans()) else []
    headers += draw(st.lists(st.tuples(_NAMES, st.one_of(_TEXTS, _DATES, st.just("close"))), max_size=2))
    if length == "chunked":
        headers.append(("Transfer-Encoding", "chunked"))
        body = draw(st.sampled_from([b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body), b"zz\r\n", body]))
    elif length != "none":
        headers.append(("Content-Length", length))
    version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2", "ICY"]))
    lines = [f"{version} {draw(_STATUSES)} {draw(st.sampled_from(['OK', '', 'räksmörgås']))}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


_TLS = st.sampled_from(
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",  # plain where TLS is spoken
        b"\x15\x03\x03\x00\x02\x02\x28",  # the alert `handshake_failure`
        b"\x15\x03\x03\x00\x02\x02\x70",  # `unrecognized_name`
        b"\x15\x03\x03\x00\x02\x01\x00",  # `close_notify`
        b"\x16\x03\x03\x40\x00" + b"\x02" * 64,  # a part of a hello that is none
        b"",
    ]
)
_PLAIN, _ENCRYPTED = st.sampled_from([False]), st.sampled_from([True])
_SLOW = st.tuples(st.sampled_from([0.0, SHORT_S, 0.5, 3.0, LONGEST_S]), st.sampled_from([1, 7, 65536]))


def _made(said: bytes, end: End, slow: tuple[float, int], fault: Fault | None, *, tls: bool) -> Answer:
    return Answer(said, end, tls, fault, *slow)


def answers() -> st.SearchStrategy[Answer]:
    """Return what a receiver may do: sound and broken answers, faults of TLS, and what fails before them."""
    ends = st.sampled_from(End)
    http = st.builds(_made, st.one_of(_said(), st.binary(max_size=30)), ends, _SLOW, st.none(), tls=_PLAIN)
    broken = st.builds(_made, st.just(b""), ends, _SLOW, st.sampled_from(Fault), tls=st.booleans())
    return st.one_of(http, http, http, st.builds(_made, _TLS, ends, _SLOW, st.none(), tls=_ENCRYPTED), broken)
