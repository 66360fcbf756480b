"""Reads the requests of one connection: the parser's callbacks fill in one exchange a request.

Never takes what could be read in two ways (RFC 9112): what the parser lets pass and the RFC does not is refused here.
"""

import contextlib
import logging
from typing import Protocol

import httptools

from runtime.http import asgi, known_head
from runtime.http.answers import STATUS_LINES, error_body
from runtime.http.exchange import Exchange
from runtime.http.line import Line

_LF = 10
_NOTED = frozenset((b"authorization", b"content-length", b"expect", b"host", b"transfer-encoding", b"upgrade"))

_MESSAGES = {
    400: "This is not valid HTTP/1.1.",
    417: "The only expectation that can be met is 100-continue.",
    431: "The head of the request, or what stands between the bytes of its body, is too large.",
    503: "The server has as many connections as it may.",
}

log = logging.getLogger(__name__)


class RefusedError(Exception):
    """A request whose head is refused; the connection ends with it."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Listener(Line, Protocol):
    """Who is told what has been read."""

    def headed(self, exchange: Exchange) -> None:
        """Take a request whose head is whole."""

    def completed(self, exchange: Exchange) -> None:
        """Take note that its body is whole too."""


class Reader:
    """Reads one connection. A plain request costs one parser call and one object."""

    __slots__ = ("_exchange", "_known", "_listener", "_parser", "_read", "incoming", "unframed")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._known: known_head.KnownHead | None = None
        """The last request's head, where that request was all that was fed."""
        self._read: Exchange | None = None
        """The request that was read last, within `feed` alone."""
        self._exchange: Exchange
        """What the callbacks fill in; there is none between two requests."""
        self.incoming: Exchange | None = None
        """What is being read."""
        self.unframed = 0
        """How many bytes have come since the last one that belonged to a body, or since the head."""

    def feed(self, data: bytes | memoryview) -> int:
        """Read on. Return 0, or the status with which the connection is to be ended: nothing more can be read."""
        known, piece = self._known, data if isinstance(data, bytes) else None
        if known is not None and piece is not None and (again := known.request(piece, self._listener)) is not None:
            self._take(*again)
            return 0
        self._known = None
        if self._parser is None or (self.incoming is None and data[0] == _LF):  # passed over by the parser: half a line
            return 400
        is_between = self.incoming is None and not self.unframed
        self.unframed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            return self._feed_without_upgrade(data[stopped.args[0] :])
        except httptools.HttpParserError as error:
            return _status_of(error)
        read, self._read = self._read, None
        if read is not None and is_between and piece is not None:
            self._known = known_head.learned(piece, read)
        return 0

    def _take(self, exchange: Exchange, body: bytes) -> None:
        """Hand on what the parser need not read."""
        self.incoming = exchange
        self._listener.headed(exchange)
        if body:
            exchange.take(body)
        self.incoming = None
        self._listener.completed(exchange)

    def close(self) -> None:
        """Let go of all that holds this, so that nothing is left for the collector. Nothing may be fed any more."""
        with contextlib.suppress(AttributeError):  # there is one within a request alone
            del self._exchange
        self._parser = self.incoming = self._known = self._read = None
        del self._listener

    # --- what the parser tells

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.incoming = self._exchange = Exchange(self._listener)

    def on_url(self, url: bytes) -> None:
        """Take the target, or a piece of it."""
        self._exchange.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; those behind the body are passed over."""
        exchange = self._exchange
        if not exchange.headed:
            name = name.lower()
            exchange.headers.append((name, value))
            if name in _NOTED:
                exchange.note(name, value)

    def on_headers_complete(self) -> None:
        """Hand the request on. Raise RefusedError."""
        exchange, parser = self._exchange, self._parser
        if parser is None:
            return
        self.unframed = 0
        exchange.method = parser.get_method()
        if exchange.upgrade and exchange.method != b"CONNECT" and parser.should_upgrade():
            return  # it stops here: see `_feed_without_upgrade`
        _judge(exchange, parser)
        exchange.headed = True
        self._listener.headed(exchange)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        self.unframed = 0
        self._exchange.take(piece)

    def on_message_complete(self) -> None:
        """Take note that the request is whole."""
        exchange = self._exchange
        if exchange.headed:  # else it was stopped at its head
            self.incoming = None
            self._read = exchange
            del self._exchange
            self._listener.completed(exchange)

    def _feed_without_upgrade(self, rest: bytes | memoryview) -> int:
        """Read the request at which the parser stopped as if it had not asked for another protocol, and what follows.

        The parser has no switch for it: it takes what follows such a head for the other protocol's (RFC 9110 7.8 lets a
        server ignore the wish). So a new one reads the same head again without the header, and judges its framing.
        """
        while True:
            exchange = self._exchange
            head = [b"%b %b HTTP/1.1\r\n" % (exchange.method, exchange.target)]
            for name, value in exchange.headers:
                if name != b"upgrade":
                    head += (name, b": ", value, b"\r\n")
            data = b"".join((*head, b"\r\n", rest))
            self._parser = httptools.HttpRequestParser(self)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:  # another one, behind it
                rest = data[stopped.args[0] :]
            except httptools.HttpParserError as error:
                return _status_of(error)
            else:
                return 0


def _judge(exchange: Exchange, parser: httptools.HttpRequestParser) -> None:
    """Refuse what the parser lets pass and RFC 9112 does not. Raise RefusedError."""
    version = parser.get_http_version()
    is_1_0 = exchange.is_1_0 = version == "1.0"
    if exchange.method == b"CONNECT" or not (version == "1.1" or is_1_0):
        raise RefusedError(400)
    if exchange.hosts != 1 and (exchange.hosts or not is_1_0):  # 3.2
        raise RefusedError(400)
    if not exchange.target.startswith(b"/") and asgi.is_elsewhere(exchange.target, exchange.host):  # 3.2.2
        raise RefusedError(400)
    if exchange.codings is not None and (is_1_0 or exchange.codings.strip().lower() != b"chunked"):  # 6.1
        raise RefusedError(400)
    if exchange.expect is not None:
        if is_1_0:
            exchange.expect = None
        elif exchange.expect.strip().lower() != b"100-continue":  # RFC 9110 10.1.1
            raise RefusedError(417)
    exchange.keep_alive = not is_1_0 and parser.should_keep_alive()


def _status_of(error: httptools.HttpParserError) -> int:
    cause = error.__context__
    if isinstance(cause, RefusedError):
        return cause.status
    if isinstance(error, httptools.HttpParserCallbackError) and cause is not None:
        log.error("a request could not be taken in", exc_info=cause)
    return 400


def refusal(status: int) -> bytes:
    """Return the answer to what is no request that could be served; the connection ends behind it."""
    body = error_body(_MESSAGES[status])
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    later = b"retry-after: 1\r\n" if status == 503 else b""
    return b"".join((STATUS_LINES[status], later, head, body))
