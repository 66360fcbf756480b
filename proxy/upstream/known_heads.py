"""Knows the head of an origin's answers again: one server's differ in their length and in what nobody here asks for.

A whole answer whose head is the known one, but for those values, needs no parser, which stands between two answers as
before. Nothing else is recognised. What decides where an answer ends, or what is made of it, is compared byte for byte.
"""

import re

WANTED = frozenset(
    b"content-type content-encoding content-length transfer-encoding retry-after retry-after-ms x-should-retry "
    b"request-id".split()
)
"""The headers of an answer that anybody asks for, in lower case."""
MOST_BYTES = 4096
"""A longer head is not known again."""

_COMPARED = WANTED | {b"connection", b"proxy-connection", b"keep-alive", b"upgrade"}
_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*([\t\x20-\x7e\x80-\xff]*)")
_ANY_VALUE = rb"[\t\x20-\x7e\x80-\xff]*+"
_ANY_LENGTH = rb"(0|[1-9][0-9]{0,8})"
_END = b"\r\n\r\n"
_LENGTH = b"content-length"
_FIRST_MISSES, _MOST_MISSES = 2, 1024
"""After so many whole answers with other heads the last one's is learned; then after twice as many, and so on."""


class KnownHeads:
    """The head of one origin's whole answers with status 200 that keep their connection."""

    __slots__ = ("_misses", "_misses_left", "_pattern", "headers")

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        """Those of the known head that anybody asks for, but for its length. Not to be changed."""
        self._pattern: re.Pattern[bytes] | None = None
        self._misses = self._misses_left = _FIRST_MISSES

    def body(self, data: memoryview) -> bytes | None:
        """Return the body of a whole answer with the known head, and nothing behind it; None: the parser must see."""
        found = None if self._pattern is None else self._pattern.match(data)
        if found is None:
            return None
        body = bytes(data[found.end() :])
        return body if len(body) == int(found[1]) else None

    def missed(self, data: memoryview, headers: dict[bytes, bytes]) -> None:
        """Take note of a whole answer in one piece that the parser has read, and its wanted headers."""
        self._misses_left -= 1
        if self._misses_left:
            return
        self._misses = self._misses_left = min(2 * self._misses, _MOST_MISSES)
        pattern = _pattern(bytes(data[:MOST_BYTES]), len(data), headers)
        if pattern is not None:
            self._pattern = re.compile(pattern)
            self.headers = {name: value for name, value in headers.items() if name != _LENGTH}


def _pattern(data: bytes, size: int, headers: dict[bytes, bytes]) -> bytes | None:
    """Return what the heads look like that are as this one, which begins `data`; None where it is none to be known."""
    head, end, _ = data.partition(_END)
    length = headers.get(_LENGTH, b"")
    if not end or size != len(head) + len(_END) + int(length or -1):
        return None
    status, *lines = head.split(b"\r\n")
    pieces, lengths = [re.escape(status)], 0
    for line in lines:
        read = _LINE.fullmatch(line)
        if read is None:
            return None
        name = read[1].lower()
        if name == _LENGTH:
            lengths += 1
            pieces.append(re.escape(line[: read.start(2)]) + _ANY_LENGTH)
        else:
            pieces.append(re.escape(line) if name in _COMPARED else re.escape(read[1]) + b":" + _ANY_VALUE)
    return re.escape(b"\r\n").join(pieces) + re.escape(_END) if lengths == 1 else None
