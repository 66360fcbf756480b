"""Finds the top-level members of a JSON object in its original bytes, so that they can be replaced in place.

It takes what no decoder would; what is a request is read by `request_members`.
"""

import re
from collections.abc import Iterator

from msgspec import Raw

MISSING = Raw()
"""Stands for a member that is not there."""

Span = tuple[int, int]
"""Start (inclusive) and end (exclusive) of a value in the bytes."""

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]', re.DOTALL)
_BRACKET = re.compile(
    rb'(?:[^"{}\[\]]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{\[][^"{}\[\]]*+[}\]])*+([{}\[\]])',  # flat containers in one step
    re.DOTALL,
)
_BLANK = b" \t\n\r"
_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})")


MOST_MEMBERS = 1000
"""An object with more top-level members than this is not looked through: nobody's request has that many."""


class TooManyMembersError(Exception):
    """An object would take too long to look through."""


def members(text: bytes) -> Iterator[tuple[bytes, Span]]:
    """Return each top-level member's name, with ``\\u`` escapes of ASCII resolved, and its value's span.

    Raise TooManyMembersError.
    """
    key: bytes | None = None
    start = -1
    found = 0
    place = text.index(b"{") + 1
    while (token := _TOKEN.search(text, place)) is not None:
        mark = token.group()
        place = token.end()
        if mark in (b"{", b"["):
            place = _after(text, token.start())
        elif mark in (b",", b"}"):
            found += 1
            if found > MOST_MEMBERS:
                raise TooManyMembersError
            if key is not None:
                yield key, _trim(text, start, token.start())
            if mark == b"}":
                return
            key, start = None, -1
        elif mark == b":" and start < 0:
            start = place
        elif key is None:
            key = _plain(mark[1:-1])


def insert_first(text: bytes, member: bytes) -> bytes:
    """Return the object in `text` with `member` (``"name":value``) put before its first one."""
    brace = text.index(b"{") + 1
    rest = text[brace:].lstrip(_BLANK)
    return text[:brace] + member + (b"" if rest.startswith(b"}") else b",") + text[brace:]


def splice(text: bytes, replacements: list[tuple[Span, bytes]]) -> bytes:
    """Return `text` with each span replaced. The spans must not overlap."""
    if len(replacements) == 1:
        (start, stop), value = replacements[0]
        return text[:start] + value + text[stop:]
    pieces: list[bytes] = []
    end = 0
    for (start, stop), value in sorted(replacements):
        pieces += (text[end:start], value)
        end = stop
    pieces.append(text[end:])
    return b"".join(pieces)


def _after(text: bytes, start: int) -> int:
    """Return the end of the object or list that begins at `start`."""
    depth = 1
    place = start + 1
    while (bracket := _BRACKET.match(text, place)) is not None:
        place = bracket.end()
        depth += 1 if bracket.group(1) in (b"{", b"[") else -1
        if depth == 0:
            return place
    return len(text)


def _trim(text: bytes, start: int, stop: int) -> Span:
    value = text[start:stop]
    return start + len(value) - len(value.lstrip(_BLANK)), stop - (len(value) - len(value.rstrip(_BLANK)))


def _plain(name: bytes) -> bytes:
    def letter(escape: re.Match[bytes]) -> bytes:
        code = int(escape.group(1), 16)
        return chr(code).encode() if code < 0x80 else escape.group()

    return _ESCAPE.sub(letter, name) if b"\\u" in name else name
