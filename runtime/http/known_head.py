"""Knows a request's head again: a client that keeps its connection sends the same bytes each time, but for the length.

What the parser has read and let pass is not read a second time. Nothing else is recognised: one other byte, a body that
is not whole or anything behind it goes to the parser, which stands between two requests as it did before.
"""

import re

import msgspec

from runtime.http.exchange import Exchange, Headers
from runtime.http.line import Line

MOST_BYTES = 2048
"""A longer head is read by the parser each time: each connection keeps one."""
_MOST_DIGITS = 9
_LENGTH = re.compile(rb"\r\n(content-length):[ \t]*(\d+)[ \t]*\r\n", re.IGNORECASE)
_NAME = b"content-length"


class KnownHead(msgspec.Struct, frozen=True, eq=False):
    """The head of a whole request that came in one piece."""

    _before: bytes
    """The head up to its length's digits, and from there on."""
    _after: bytes
    _method: bytes
    _target: bytes
    _headers: Headers
    """Those before the length's, and those after it."""
    _later: Headers
    _authorization: bytes | None
    _host: bytes

    def request(self, data: bytes, line: Line) -> tuple[Exchange, bytes] | None:
        """Return the request that `data` is, and its body; None where it is another, or not whole, or more."""
        begin = len(self._before)
        end = data.find(b"\r", begin)
        digits = data[begin:end]
        if not (data.startswith(self._after, end) and data.startswith(self._before) and digits.isdigit()):
            return None
        body = data[end + len(self._after) :]
        if len(digits) > _MOST_DIGITS or len(body) != int(digits):
            return None
        headers = [*self._headers, (_NAME, digits), *self._later]
        length, host = len(body), self._host
        exchange = Exchange(line, self._method, self._target, headers, self._authorization, length, host=host, hosts=1)
        exchange.headed = True
        return exchange, body


def learned(data: bytes, exchange: Exchange) -> KnownHead | None:
    """Return the head of a request that was read as a whole from `data`, if it is one to be met again."""
    stop = data.find(b"\r\n\r\n", 0, MOST_BYTES)
    length = None if stop < 0 else _LENGTH.search(data, 0, stop + 2)
    if length is None or exchange.length != int(length[2]) or len(data) != stop + 4 + exchange.length:
        return None
    is_plain = exchange.keep_alive and exchange.hosts == 1 and exchange.codings is exchange.expect is None
    if exchange.upgrade or not is_plain or exchange.method == b"CONNECT" or data[0] == 13:
        return None
    places = [place for place, (name, _) in enumerate(exchange.headers) if name == _NAME]
    if len(places) != 1:
        return None
    headers, later = exchange.headers[: places[0]], exchange.headers[places[0] + 1 :]
    before, after = data[: length.start(2)], data[length.end(2) : stop + 4]
    asked = (exchange.method, exchange.target, headers, later)
    return KnownHead(before, after, *asked, exchange.authorization, exchange.host)
