"""What of a request beside its body goes on to an upstream: a path, a query, a few headers; each part is checked.

The path behind `/sync/{slug}` is one into somebody's server, next to others that a customer may not reach. So nothing
passes that any server, proxy or framework on the way could take for a step out of its place, however often it decodes.
"""

import re
from urllib.parse import unquote_to_bytes

from proxy.core import replies
from proxy.core.calls import Envelope
from proxy.core.replies import Reply
from runtime.http import asgi
from runtime.http.exchange import Exchange

DECODINGS = 3
"""How many times a path is decoded to see what it could come to."""
MOST_HEADER_BYTES = 8192
"""Of all headers of one request that go on."""

_SLUG = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
_LONGEST_SLUG = 255
_RAW = re.compile(rb"(?:[!-$&-~]|%[0-9A-Fa-f]{2})*")
"""Printable ASCII whose percent signs begin an escape (RFC 3986 2.1)."""
_VALUE = re.compile(rb"[\t -~]*")
_STEP = re.compile(rb"\.\.?(?:[;?#].*)?", re.DOTALL)
"""A dot segment, also with parameters, or with what a later decoding takes for the end of the path."""
_UNWANTED = re.compile(rb"[\x00-\x1f\x7f\\\xc0\xc1]")
"""Control characters, the other slash, and the bytes that begin an overlong form in UTF-8 (RFC 3629 10)."""


def messages(exchange: Exchange) -> Envelope | Reply:
    """Return what of a call of the Messages API goes on: its versions, betas and query (contract 3.3)."""
    _, query = asgi.split(exchange.target)
    lines = _lines(exchange, (b"anthropic-version", b"anthropic-beta"))
    if isinstance(lines, Reply):
        return lines
    return _made(None, b"", query, b"content-type: application/json\r\naccept: */*\r\n" + lines)


def count_tokens(exchange: Exchange) -> Envelope | Reply:
    """Return the same for `count_tokens`."""
    made = messages(exchange)
    if isinstance(made, Reply):
        return made
    return Envelope(None, "POST", "/count_tokens" + made.suffix, made.header_lines)


def model_server(exchange: Exchange) -> Envelope | Reply:
    """Return where a call of the model server's own routes goes: the slug, and for `/sync` the path behind it."""
    path, query = asgi.split(exchange.target)
    _, route, rest = path.split(b"/", 2)
    slug, behind = _slug(rest)
    if _SLUG.fullmatch(slug) is None or len(slug) > _LONGEST_SLUG:
        return replies.model_not_found(slug.decode("utf-8", "replace"))
    if route == b"sync":
        refused = _refused(behind)
        if refused is not None:
            return replies.bad_request(f"The path behind the slug must not hold {refused}.", "path")
    elif behind:
        return replies.error(404, "There is nothing behind the slug.", kind="invalid_request_error")
    lines = _lines(exchange, (b"content-type", b"accept"))
    if isinstance(lines, Reply):
        return lines
    accepts = any(name == b"accept" for name, _ in exchange.headers)
    return _made(slug, behind, query, lines if accepts else lines + b"accept: */*\r\n", exchange.method)


def _slug(rest: bytes) -> tuple[bytes, bytes]:
    """Return the slug, whose own slash may come raw or as `%2F`, and what is behind it with its slash."""
    first, _, others = rest.partition(b"/")
    if b"%" in first:
        return unquote_to_bytes(first), rest[len(first) :]
    second, slash, behind = others.partition(b"/")
    return first + b"/" + second, slash + behind


def _refused(behind: bytes) -> str | None:
    """Return what a path must not hold; None: it may go on. It begins with a slash, and may end with one."""
    if len(behind) <= 1:
        return "nothing, but name a path of the model's server"
    if _RAW.fullmatch(behind) is None:
        return "characters that a path has only as escapes, or broken escapes"
    text = behind
    for _ in range(DECODINGS + 1):
        if _UNWANTED.search(text):
            return "control characters, backslashes or overlong forms, in any encoding"
        segments = text[1:].split(b"/")
        if not all(segments[:-1]):
            return "empty segments, in any encoding"
        if any(_STEP.fullmatch(segment) for segment in segments):
            return "dot segments, in any encoding"
        decoded = unquote_to_bytes(text)
        if decoded == text:
            break
        text = decoded
    return None


def _lines(exchange: Exchange, names: tuple[bytes, ...]) -> bytes | Reply:
    lines = b""
    for name, value in exchange.headers:
        if name in names:
            if _VALUE.fullmatch(value) is None:
                return replies.bad_request(f"Header {name.decode()} must be printable ASCII.")
            lines += name + b": " + value + b"\r\n"
    if len(lines) > MOST_HEADER_BYTES:
        return replies.bad_request(f"The headers that go on may be at most {MOST_HEADER_BYTES} bytes.")
    return lines


def _made(slug: bytes | None, path: bytes, query: bytes, lines: bytes, method: bytes = b"POST") -> Envelope | Reply:
    if _RAW.fullmatch(query) is None:
        return replies.bad_request("The query must be printable ASCII, with whole escapes.", "query")
    suffix = path + (b"?" + query if query else b"")
    return Envelope(
        None if slug is None else slug.decode("ascii"), method.decode("ascii"), suffix.decode("ascii"), lines
    )
