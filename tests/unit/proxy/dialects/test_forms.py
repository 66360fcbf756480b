"""A stream is told from a plain answer by its first bytes, whatever its server calls it."""

import pytest

from proxy.dialects import forms
from proxy.dialects.json_text import BOM

STREAMS = [
    b"data: {",
    b"data:{",
    b"data\n",
    b"event: x",
    b"id: 1",
    b"id\r",
    b"retry: 5",
    b": ping",
    b":\n",
    b"\n\ndata: 1",
]
PLAINS = [b"{", b' \r\n\t{"id"', b'{"data: ":1}']
NEITHER = [b"[1]", b"<html>", b"database: x", b"dat4", b"\x1f\x8b", b"data x: 1"]


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("mark", [b"", BOM])
def test_what_its_bytes_say_counts(*, declared: bool, mark: bytes) -> None:
    assert {forms.is_stream(mark + begun, declared=declared) for begun in STREAMS} == {True}
    assert {forms.is_stream(mark + begun, declared=declared) for begun in PLAINS} == {False}


@pytest.mark.parametrize("declared", [True, False])
def test_what_is_neither_is_what_it_is_called(*, declared: bool) -> None:
    assert {forms.is_stream(begun, declared=declared) for begun in NEITHER} == {declared}


@pytest.mark.parametrize("begun", [b"", BOM[:1], BOM[:2], BOM, b"\n \n", b"d", b"data", b"even", BOM + b"i", b"retry"])
def test_too_little_says_nothing_yet(begun: bytes) -> None:
    assert forms.is_stream(begun, declared=True) is None


def test_blanks_without_end_are_not_waited_for() -> None:
    assert forms.is_stream(b" " * forms.MOST_BLANKS, declared=False) is None
    assert forms.is_stream(b" " * (forms.MOST_BLANKS + 1), declared=False) is False


def test_headers_say_what_it_is() -> None:
    other = (b"retry-after", b"1")
    assert forms.stream_headers([other, (b"content-type", b"text/plain")]) == [
        (b"content-type", b"text/event-stream"),
        other,
    ]
    named = [(b"content-type", b"Text/Event-Stream; charset=utf-8"), other]
    assert forms.stream_headers(named) == named
    assert forms.plain_headers(named) == [(b"content-type", b"application/json"), other]
    assert forms.plain_headers([(b"content-type", b"text/plain"), other]) == [(b"content-type", b"text/plain"), other]
