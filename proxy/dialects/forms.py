"""Tells a stream of server-sent events from a plain answer by their first bytes.

A server's `content-type` is asked only where the bytes say nothing: many send events under another, or under none.
"""

import re

from proxy.dialects.json_text import BOM

MOST_BLANKS = 4096
"""Before the first byte that says anything; servers send blanks to keep a connection alive."""

_BLANK = b" \t\r\n"
_FIELD = re.compile(rb"(?:data|event|id|retry)[:\r\n]|:")
_NAMES = (b"data", b"event", b"id", b"retry")
_EVENT_STREAM = b"text/event-stream"
_CONTENT_TYPE = b"content-type"

Headers = list[tuple[bytes, bytes]]


def is_stream(begun: bytes, *, declared: bool) -> bool | None:
    """Say whether an answer that begins so is a stream; None: too little has come to say.

    `declared` is what its content type says.
    """
    if is_object(begun):
        return False
    text = begun.removeprefix(BOM).lstrip(_BLANK)
    if _FIELD.match(text):
        return True
    undecided = BOM.startswith(begun) or not text or any(name.startswith(text) for name in _NAMES)
    return None if undecided and len(begun) <= MOST_BLANKS else declared


def is_object(begun: bytes) -> bool:
    """Say whether an answer that begins so can only be a JSON object."""
    return begun.removeprefix(BOM).lstrip(_BLANK).startswith(b"{")


def stream_headers(headers: Headers) -> Headers:
    """Return the headers of a stream, whatever its server called it."""
    if any(name == _CONTENT_TYPE and value.lower().startswith(_EVENT_STREAM) for name, value in headers):
        return headers
    return [(_CONTENT_TYPE, _EVENT_STREAM), *((name, value) for name, value in headers if name != _CONTENT_TYPE)]


def plain_headers(headers: Headers) -> Headers:
    """Return the headers of a plain answer, which is JSON where its server called it a stream."""
    return [
        (name, b"application/json" if name == _CONTENT_TYPE and value.lower().startswith(_EVENT_STREAM) else value)
        for name, value in headers
    ]
