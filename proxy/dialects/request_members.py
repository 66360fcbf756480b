"""Reads the top-level members of a request's JSON object, each undecoded, and finds them in the original bytes.

A `PlainReader` reads what nearly all clients send in a tenth of the time, and leaves the rest to `read` and `unclear`.
Linear in C for every input, however it is nested: one pass of the decoder, and a step for each of at most
`MOST_MEMBERS` members.
"""

import re
from collections.abc import Collection, Iterator

import msgspec
from msgspec import Raw

from proxy.dialects.json_members import MISSING, MOST_MEMBERS, Span, TooManyMembersError

_MOST_HALVES = 10_000
"""Of surrogate pairs; a body with more escapes of them that no decoder takes is not looked into."""
_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
_SMALL = 64 * 1024
"""A body up to this cannot hold so many members that they would have to be counted while they are made."""
_NAME = re.compile(rb'[ \t\n\r]*+"[^"\\]*+(?:\\.[^"\\]*+)*+"[ \t\n\r]*+:[ \t\n\r]*+', re.DOTALL)
_HIDDEN = re.compile(rb"\\u(?:00|017|212)|\xc5\xbf|\xe2\x84\xaa")
"""A letter of a name as an escape, the long s or the Kelvin sign: what may spell a name in another way."""
_SEPARATOR = re.compile(rb"[ \t\n\r]*+[,}]")


class Name:
    """One member's name, with its escapes resolved. Two of the same text are two, so that repeats stay apart."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


Members = dict[Name, Raw]
"""In their order. A value's length is that of its text in the body."""


class _Counter:
    """Makes the names of one object, and stops where there are too many: each costs memory."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MOST_MEMBERS

    def name(self, _kind: type, text: str) -> Name:
        self.left -= 1
        if self.left < 0:
            raise TooManyMembersError
        return Name(text)


class PlainReader:
    """Reads the `known` members of bodies that can be read in one way: each is written once in the whole body, in
    lower case and without escapes.
    """

    __slots__ = ("_decode", "_spelled")

    def __init__(self, known: Collection[str]) -> None:
        names = sorted(known)
        firsts = "".join({name[0] for name in names})
        self._spelled = re.compile(
            rf'"(?=[{firsts}])({"|".join(names)})"[ \t\n\r]*+:[ \t\n\r]*+'.encode("ascii"), re.IGNORECASE
        )
        struct = msgspec.defstruct("Known", [(name, Raw, MISSING) for name in names])
        self._decode = msgspec.json.Decoder(struct).decode

    def read(self, body: bytes) -> dict[str, tuple[Raw, Span]] | None:
        """Return each known member's value and where it stands; None: the body has to be looked into, or is refused."""
        if len(body) > _SMALL or body.count(b":") > MOST_MEMBERS:
            return None
        is_ascii = body.isascii()
        if (not is_ascii or body.find(b"\\u") >= 0) and _HIDDEN.search(body) is not None:
            return None
        try:
            if not is_ascii:
                body.decode()
            members = self._decode(body)
        except (ValueError, RecursionError):
            return None
        found: dict[str, tuple[Raw, Span]] = {}
        for spelled in self._spelled.finditer(body):
            name = spelled[1].decode("ascii")
            value = getattr(members, name, MISSING)
            if value is MISSING or name in found:
                return None
            start = spelled.end()
            found[name] = (value, (start, start + len(value)))
        return found


_small_decoder = msgspec.json.Decoder(Members, dec_hook=lambda _kind, text: Name(text))


def read(body: bytes) -> Members:
    """Return the members of the object in `body`.

    Half of a surrogate pair, which JSON allows and the decoder does not, becomes another character of the same length.

    Raise TooManyMembersError; msgspec.ValidationError for what is no object, msgspec.DecodeError for what is no JSON,
    RecursionError for what is nested too deeply.
    """
    try:
        return _decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        halves = body.lower().count(b"\\ud")
        whole = _SURROGATE.sub(_replaced, body) if 0 < halves <= _MOST_HALVES else body
        if whole == body:
            raise
        return _decode(whole)


def spans(body: bytes, members: Members) -> Iterator[tuple[Name, Span, Span]]:
    """Return each member's name, the span of its value, and its own, from separator to separator."""
    place = body.index(b"{") + 1
    for name, value in members.items():
        found = _NAME.match(body, place)
        if found is None:
            return
        begin, start = place, found.end()
        stop = start + len(value)
        separator = _SEPARATOR.match(body, stop)
        if separator is None:
            return
        place = separator.end()
        yield name, (start, stop), (begin, place - 1)


def unclear(members: Members, known: Collection[str], once: Collection[str]) -> str | None:
    """Return the first of `known` names that a server may take from another member than we do; None: there is none.

    That is one of `once` that is repeated, and any that is spelled in another case, also alone: Go's encoding/json
    reads such a member as its own (https://pkg.go.dev/encoding/json#Unmarshal), the long s and the Kelvin sign too.
    """
    seen: set[str] = set()
    for name in members:
        text = name.text
        if text in known:
            if text in seen and text in once:
                return text
            seen.add(text)
        else:
            read_as = folded(text)
            if read_as in known:
                return read_as
    return None


def folded(name: str) -> str:
    """Return the name that Go's encoding/json takes for the same: it folds letter by letter."""
    text = name.casefold()
    return text if len(text) == len(name) else name


def without(body: bytes, name: str) -> bytes:
    """Return `body` without its members of that name; what stays keeps its bytes. Raise as `read` does."""
    entries = list(spans(body, read(body)))
    kept = [body[start:stop] for key, _, (start, stop) in entries if key.text != name]
    if len(kept) == len(entries):
        return body
    (first, _), (_, last) = entries[0][2], entries[-1][2]
    return body[:first] + b",".join(kept) + body[last:]


def _decode(body: bytes) -> Members:
    if len(body) <= _SMALL:
        members = _small_decoder.decode(body)
        if len(members) > MOST_MEMBERS:
            raise TooManyMembersError
        return members
    return msgspec.json.decode(body, type=Members, dec_hook=_Counter().name)


def _replaced(escape: re.Match[bytes]) -> bytes:
    lone = len(escape.group()) == len(rb"\ud800")
    return rb"\ufffd" if lone else escape.group()
