"""What of Vertex AI's answers is written anew, and that all else passes byte for byte."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.dialects import vertex
from proxy.dialects.vertex import CallNumberer


def line(*calls: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"tool_calls": list(calls)} | more}]}).encode() + b"\n\n"


def sent(*chunks: bytes) -> bytes:
    numberer = CallNumberer()
    return b"".join([numberer.feed(chunk) for chunk in chunks]) + numberer.finish()


def indexes(text: bytes) -> list[Any]:
    chunks = [json.loads(each.removeprefix(b"data: ")) for each in text.split(b"\n\n") if each]
    return [call["index"] for chunk in chunks for call in chunk["choices"][0]["delta"]["tool_calls"]]


def test_calls_are_numbered_over_the_whole_stream_row_56() -> None:
    assert indexes(sent(line({"id": "a"}, {"id": "b"}) + line({"id": "c", "index": None}))) == [0, 1, 2]


def test_signatures_stay_row_57() -> None:
    signed = {"id": "a", "extra_content": {"google": {"thought_signature": "c2ln"}}}
    assert b'"thought_signature":"c2ln"' in sent(line(signed))


@given(st.lists(st.integers(0, 400), max_size=5))
def test_what_is_numbered_and_what_is_no_call_passes_as_it_came(places: list[int]) -> None:
    text = (
        b': "tool_calls"\r\ndata: {"tool_calls": bent}\r\n\r\n' + line({"index": 0, "id": "a"}) + b'data: "tool_calls"'
    )
    edges = [0, *sorted(place % len(text) for place in places), len(text)]
    assert sent(*(text[start:stop] for start, stop in itertools.pairwise(edges))) == text


def test_a_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vertex, "MAX_LINE_BYTES", 8)
    numberer = CallNumberer()
    assert numberer.feed(b"12345678") == b""
    assert not numberer.broken
    assert numberer.feed(b"9") == b""
    assert numberer.broken
    assert numberer.cut() == b"123456789"


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "message"),
    [
        (400, b'[{"error":{"code":400,"message":"Bad."}}]', "invalid_request_error", "400", "Bad."),
        (429, b'{"error":{"message":"Slow.","status":"X"}}', "rate_limit_error", "X", "Slow."),
        (503, b"<html>", "server_error", None, "The model's server answered with status 503."),
        (404, b"[]", "invalid_request_error", None, "The model's server answered with status 404."),
        (500, b'{"error":"no"}', "server_error", None, "The model's server answered with status 500."),
    ],
)
def test_errors_row_55(status: int, body: bytes, kind: str, code: str | None, message: str) -> None:
    assert json.loads(vertex.error(status, body))["error"] == {
        "message": message,
        "type": kind,
        "param": None,
        "code": code,
    }
