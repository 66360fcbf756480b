"""The data of server-sent events, however the bytes are cut."""

import pytest

from proxy.dialects import events
from proxy.dialects.events import EventCutter


def cut(*chunks: bytes) -> list[bytes]:
    cutter = EventCutter()
    return [data for chunk in chunks for data in cutter.feed(chunk)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_all_line_endings(end: bytes) -> None:
    text = end.join([b"event: x", b"data: a", b"", b": comment", b"", b"data:b", b"data: c", b"", b"id: 1", b"", b""])
    assert cut(text) == [b"a", b"b\nc"]
    assert cut(*(text[at : at + 1] for at in range(len(text)))) == [b"a", b"b\nc"]


def test_an_event_is_given_with_the_byte_that_ends_it() -> None:
    cutter = EventCutter()
    assert cutter.feed(b"data: a\r\n") == []
    assert cutter.feed(b"\r") == [b"a"]
    assert cutter.feed(b"\ndata: b\n\n") == [b"b"]


def test_a_byte_order_mark_and_an_end_without_a_blank_line() -> None:
    assert cut(b"\xef\xbb\xbfdata: a\n\ndata: b\n") == [b"a"]


def test_one_blank_after_the_colon_belongs_to_the_field() -> None:
    assert cut(b"data:  a\n\n", b"data\n\n", b"datas: b\n\n") == [b" a", b""]


def test_an_event_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 20)
    cutter = EventCutter()
    assert cutter.feed(b"data: 1\n\ndata: 0123456789\n") == [b"1"]
    assert not cutter.too_large
    assert cutter.feed(b"data: 0123456789") == []
    assert cutter.too_large
    assert cutter.feed(b"\n\ndata: 2\n\n") == []
