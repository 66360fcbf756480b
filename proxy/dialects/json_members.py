"""Finds the top-level members of a JSON object in its original bytes, so that they can be replaced in place.

Never checks the JSON (callers have decoded it before) and never re-serialises any of it.

The rule the fast path rests on: within a JSON string every quote is escaped, and only a ``\\u00`` escape can spell a
letter of ours another way. So where the text holds no ``\\u00`` and ``"name"`` just once, and a decoder has found a
top-level member of that name, that one place is it.
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
_COLON = re.compile(rb"[ \t\n\r]*:[ \t\n\r]*")
_BLANK = b" \t\n\r"
_ESCAPE = re.compile(rb"\\u([0-9a-fA-F]{4})")


MOST_MEMBERS = 1000
"""An object with more top-level members than this is not looked through: nobody's request has that many."""


class TooManyMembersError(Exception):
    """An object would take too long to look through."""


def locate(text: bytes, name: bytes, length: int) -> list[Span]:
    """Return the value's span of each top-level member `name` of the object in `text`, known to hold at least one.

    `length` is that of the decoded value's own text; where a name is repeated the spans are measured instead.
    """
    quoted = b'"' + name + b'"'
    first = text.find(quoted)
    alone = first >= 0 and text.find(quoted, first + 1) < 0 and b"\\u00" not in text
    colon = _COLON.match(text, first + len(quoted)) if alone else None
    if colon is not None:
        return [(colon.end(), colon.end() + length)]
    return [span for key, span in members(text) if key == name]


def is_repeated(text: bytes, name: bytes) -> bool:
    """Say whether the object in `text` has more than one top-level member `name`."""
    quoted = b'"' + name + b'"'
    first = text.find(quoted)
    if b"\\u00" not in text and (first < 0 or text.find(quoted, first + 1) < 0):
        return False
    return sum(key == name for key, _ in members(text)) > 1


def members(text: bytes) -> Iterator[tuple[bytes, Span]]:
    """Return each top-level member's name, with ``\\u`` escapes of ASCII resolved, and its value's span.

    Raise TooManyMembersError.
    """
    return ((name, value) for name, value, _ in _entries(text))


def without(text: bytes, name: bytes) -> bytes:
    """Return the object in `text` without its top-level members `name`; what stays keeps its bytes, blanks included.

    Raise TooManyMembersError.
    """
    entries = list(_entries(text))
    kept = [text[start:stop] for key, _, (start, stop) in entries if key != name]
    if len(kept) == len(entries):
        return text
    (first, _), (_, last) = entries[0][2], entries[-1][2]
    return text[:first] + b",".join(kept) + text[last:]


def _entries(text: bytes) -> Iterator[tuple[bytes, Span, Span]]:
    """Return each top-level member's name, its value's span, and its own, from separator to separator."""
    key: bytes | None = None
    start = -1
    found = 0
    begin = place = text.index(b"{") + 1
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
                yield key, _trim(text, start, token.start()), (begin, token.start())
            if mark == b"}":
                return
            key, start, begin = None, -1, place
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
