"""What passes unchanged, and the usage that is found on the side (contract 3.3)."""

import json

import pytest

from proxy.dialects.routes import model_server
from proxy.dialects.routes.model_server import OpaqueStream
from proxy.limits.estimate import TokenCounts

USAGE = {"prompt_tokens": 5, "completion_tokens": 2}
COUNTED = TokenCounts(input_tokens=5, output_tokens=2)


def follow(*pieces: bytes) -> tuple[bytes, OpaqueStream]:
    stream = OpaqueStream()
    sent = b"".join([stream.feed(piece) for piece in pieces])
    stream.finish()
    return sent, stream


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"usage": USAGE}).encode(),
        b'\xef\xbb\xbf {"model":"theirs","usage":' + json.dumps(USAGE).encode() + b"}",
        b'data: {"choices":[]}\n\ndata: {"usage":' + json.dumps(USAGE).encode() + b"}\n\ndata: [DONE]\n\n",
        b'event: response.completed\ndata: {"response":{"usage":' + json.dumps(USAGE).encode() + b"}}\n\n",
    ],
)
def test_usage_is_found_whatever_carries_it_and_however_it_is_cut(text: bytes) -> None:
    for pieces in ([text], [text[at : at + 1] for at in range(len(text))], [text[:9], text[9:]]):
        sent, stream = follow(*pieces)
        assert sent == text
        assert stream.tokens == COUNTED
        assert stream.is_whole


@pytest.mark.parametrize(
    "text", [b"", b"\x00\xff" * 900, b"[1]", b'{"usage":7}', b'{"usage"', b'"usage"', b"usage: 5\n\n"]
)
def test_what_tells_of_none_has_none(text: bytes) -> None:
    sent, stream = follow(text)
    assert (sent, stream.tokens, stream.content_bytes, stream.is_whole) == (text, None, 0, True)


def test_only_so_much_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_server, "MOST_LOOKED_AT_BYTES", 64)
    text = b'{"padding":"' + b"x" * 64 + b'","usage":' + json.dumps(USAGE).encode() + b"}"
    sent, stream = follow(text[:40], text[40:])
    assert (sent, stream.tokens) == (text, None)


@pytest.mark.parametrize("beginning", [b"\x89PNG", b"[{", b" \n plain", b"\xef\xbb\xbf<html>", b" " * 5000])
def test_what_cannot_tell_of_usage_is_not_gathered(beginning: bytes) -> None:
    stream = OpaqueStream()
    for chunk in [*([beginning[at : at + 1] for at in range(len(beginning))]), *[b"\x00{usage" * 100] * 50]:
        assert stream.feed(chunk) == chunk
    assert stream.held_bytes == 0
    stream.finish()
    assert stream.tokens is None


def test_an_object_is_gathered_because_its_usage_may_stand_anywhere() -> None:
    stream = OpaqueStream()
    text = b'{"usage":' + json.dumps(USAGE).encode() + b',"output":"' + b"x" * 5000
    stream.feed(text)
    assert stream.held_bytes == len(text)
    stream.feed(b'"}')
    stream.finish()
    assert (stream.tokens, stream.held_bytes) == (COUNTED, 0)


def test_what_is_cut_off_is_not_whole_and_has_no_form_for_an_error() -> None:
    stream = OpaqueStream()
    assert stream.feed(b"half") == b"half"
    assert not stream.is_whole
    assert stream.error_event(502, b"{}") is None  # type: ignore[func-returns-value]


def test_a_body_passes_whatever_it_is() -> None:
    body = b"\x89PNG\x00\xff"
    assert model_server.upstream_body(model_server.parse(body), "their-model") == body
