"""No way to write an answer that a client reads hides its counts, or shows the upstream's own model name."""

import pytest

from proxy.dialects import answers
from tests.unit.proxy.dialects.test_answers import COUNTED, COUNTS, DONE, SLUG, follow


@pytest.mark.parametrize("at", range(1, 12))
def test_a_byte_order_mark_is_left_out_however_it_is_cut(at: int) -> None:
    event = b'\xef\xbb\xbfdata: {"choices":[],' + COUNTS + b"}\n\n"
    sent, stream = follow(event[:at], event[at:], DONE)
    assert (sent, stream.tokens) == (DONE, COUNTED)
    assert follow(b"\xef", b"\xbbdata: x\n\n")[0] == b"\xef\xbbdata: x\n\n"


def test_a_data_line_without_a_colon_is_an_empty_line_of_data() -> None:
    """HTML Living Standard, 9.2.6: so what follows it is not the beginning of the event's data."""
    _, stream = follow(b"data\ndata: [DONE]\n\n")
    assert not stream.done
    sent, stream = follow(b'data\ndata:{"model":"theirs","choices":[]}\n\n', DONE)
    assert b"theirs" not in sent
    assert stream.done


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"model":"theirs","mod\\u0065l":"theirs"}',
        b'{"mod\\u0065l":"theirs","model":"theirs"}',
        b'{"\\u006dodel":"theirs","choices":[{"delta":{"content":"\\u00e9"}}]}',
        b'{"model":"theirs","choices":[{"delta":{"content":NaN}}]}',
        b'\xef\xbb\xbf{"id":"\\ud83d","model":"theirs"}',
        b'{"id":"\xff","model":"theirs"}',
        b'{"id":1' + b"0" * 5000 + b',"model":"theirs"}',
        b'{"id":' + b"[" * 3000 + b"]" * 3000 + b',"model":"theirs"}',
        b'{"id":[' + b"[]," * 300_000 + b'[]],"model":"theirs"}',
        b'{"id":[' + b"-Infinity," * 300_000 + b'NaN],"model":"theirs"}',
    ],
)
def test_no_spelling_of_an_answer_shows_the_upstreams_name(chunk: bytes) -> None:
    for known in (b"", b'data: {"model":"theirs","choices":[]}\n\n'):
        sent, _ = follow(known + b"data: " + chunk + b"\n\n")
        assert b"theirs" not in sent
        assert sent.count(b"lab/model") == chunk.count(b"theirs") + known.count(b"theirs")
    assert b"theirs" not in answers.plain(chunk, SLUG).body


def test_an_event_that_begins_like_the_one_before_it_is_named_like_it() -> None:
    begun = b'data: {"id":"1","model":"theirs","choices":[{"delta":{"content":'
    events = [
        begun + b'"a"}}]}\n\n',
        begun + b'"b"}}]}\n\n',
        begun + b'"c"}}],"model":"theirs"}\n\n',
        begun + b'"\\"model\\":\\"theirs"}}],"x":{"model":"kept"}}\n\n',
        b'data: {"id":"1","model":"theirs2"}\n\n',
        b'data: {"id":"1","model":"theirs"}\n\n',
    ]
    wanted = [
        events[0].replace(b"theirs", b"lab/model"),
        events[1].replace(b"theirs", b"lab/model"),
        events[2].replace(b"theirs", b"lab/model"),
        events[3].replace(b"theirs", b"lab/model", 1),
        events[4].replace(b"theirs2", b"lab/model"),
        events[5].replace(b"theirs", b"lab/model"),
    ]
    assert follow(*events)[0] == b"".join(wanted)


CROWDED = b'{"logprobs":[' + b'{"logprob":-Infinity},' * 60_000 + b"{}],"


def test_an_answer_with_more_parts_than_are_looked_into_is_billed_by_its_counts_else_by_what_seems_to_be_text() -> None:
    counted = answers.plain(CROWDED + b'"choices":[{"message":{"content":"hello"}}],' + COUNTS + b"}", SLUG)
    assert (counted.tokens, counted.failed) == (COUNTED, False)
    uncounted = answers.plain(CROWDED + b'"choices":[{"message":{"content":"hello"}}]}', SLUG)
    assert (uncounted.tokens, uncounted.content_bytes) == (None, 5)
    sent, stream = follow(b"data: " + CROWDED + b'"choices":[],' + COUNTS + b"}\n\n")
    assert stream.tokens == COUNTED
    assert sent.startswith(b"data: {"), "it may have choices, so it is passed on"
