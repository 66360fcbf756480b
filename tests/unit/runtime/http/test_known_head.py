"""What is known again of a request's head is read as the parser reads it, and nothing else is."""

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.http.exchange import Exchange
from runtime.http.reader import Listener, Reader
from tests.support import altered as one_place

HEAD = (
    b"POST /v1/x?a=b HTTP/1.1\r\nHost: a.example\r\nX-Odd:  b \r\n"
    b"content-Length: %d\r\nAuthorization: Api-Key k\r\n\r\n"
)


class Heard:
    """A `Listener` that notes what it hears."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def headed(self, exchange: Exchange) -> None:
        head = (exchange.method, exchange.target, exchange.headers, exchange.authorization, exchange.length)
        rest = (exchange.host, exchange.hosts, exchange.headed, exchange.keep_alive, exchange.codings)
        self.told.append((*head, *rest))

    def completed(self, exchange: Exchange) -> None:
        self.told.append((b"".join(exchange._pieces), exchange.size))

    def pause_reading(self) -> None:
        """Read on all the same."""


class Both:
    """One reader that knows heads again, and one that never does."""

    def __init__(self) -> None:
        self.heard, self.parsed = Heard(), Heard()
        self.reader = Reader(cast(Listener, self.heard))
        self.parser = Reader(cast(Listener, self.parsed))

    def feed(self, data: bytes) -> int:
        self.parser._known = None
        status, expected = self.reader.feed(data), self.parser.feed(data)
        assert (status, self.heard.told) == (expected, self.parsed.told)
        assert (self.reader.incoming is None, self.reader.unframed) == (
            self.parser.incoming is None,
            self.parser.unframed,
        )
        return status


def request(body: bytes, length: int | None = None) -> bytes:
    return HEAD % (len(body) if length is None else length) + body


@st.composite
def altered(draw: st.DrawFn) -> bytes:
    """A request as before, or one that differs somewhere."""
    body = draw(st.binary(max_size=120))
    data = request(body, draw(st.one_of(st.none(), st.integers(0, 130))))
    return one_place.altered(
        draw, data, [b"\r", b"\n", b"\r\n", b"0", b"9", b"+", b" ", b":", b"\x00", b"X-B: c\r\n", data]
    )


@given(st.lists(altered(), min_size=1, max_size=5))
def test_every_request_is_read_as_the_parser_alone_reads_it(pieces: list[bytes]) -> None:
    both = Both()
    assert both.feed(request(b"{}")) == 0
    for data in pieces:
        if both.feed(data):
            break


@pytest.mark.parametrize(
    "begun",
    [
        request(b"{}") + b"\r",
        request(b"{}") + b"\r\n",
        b"\r\n" + request(b"{}"),
        request(b"{}") * 2,
        request(b"{}")[:-1],
    ],
)
def test_a_head_is_known_only_where_its_request_was_all_that_came(begun: bytes) -> None:
    both = Both()
    both.feed(begun)
    assert both.reader._known is None
    both.feed(request(b"{}"))


@pytest.mark.parametrize("line", [b"connection: close", b"expect: 100-continue", b"upgrade: x\r\nconnection: upgrade"])
def test_a_head_that_asks_for_more_than_an_answer_is_not_known(line: bytes) -> None:
    both = Both()
    both.feed(request(b"{}").replace(b"X-Odd:  b ", line))
    assert both.reader._known is None


def test_a_known_request_takes_no_step_of_the_parser() -> None:
    both = Both()
    both.feed(request(b"{}"))
    both.reader._parser = cast(Any, None)  # which a closed reader has none of
    for body in (b"{}", b"", b"x" * 1000):
        both.feed(request(body))
    assert len(both.heard.told) == 8


@pytest.mark.parametrize(("was", "now"), [(b"Api-Key k", b"Api-Key l"), (b"a.example", b"b.example")])
def test_a_head_that_differs_before_or_behind_its_length_is_read_anew(was: bytes, now: bytes) -> None:
    both = Both()
    both.feed(request(b"{}"))
    both.feed(request(b"{}").replace(was, now))
    both.feed(request(b"{}"))
    assert len(both.heard.told) == 6
