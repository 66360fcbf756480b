"""Token counts and the slug's place in upstream answers (contract 3, 4)."""

import pytest

from proxy.dialects import answers, written
from proxy.dialects.answers import StreamReader
from proxy.limits.estimate import TokenCounts
from schemas.usage import UsageSource

SLUG = "lab/model"
DONE = b"data: [DONE]\n\n"
COUNTS = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}}'
COUNTED = TokenCounts(input_tokens=5, output_tokens=2, cached_input_tokens=3)


def follow(*chunks: bytes, keep_usage: bool = False) -> tuple[bytes, StreamReader]:
    stream = StreamReader(SLUG, keep_usage=keep_usage)
    sent = b"".join([stream.feed(chunk) for chunk in chunks])
    stream.finish()
    return sent + stream.held, stream


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_all_line_endings(ending: bytes) -> None:
    lines = [
        b'data: {"model":"x","choices":[1]}',
        b"",
        b'data: {"choices":[],' + COUNTS + b"}",
        b"",
        b"data: [DONE]",
        b"",
    ]
    text = ending.join([*lines, b""])
    sent, stream = follow(text)
    assert sent == ending.join([lines[0].replace(b'"x"', b'"lab/model"'), b"", *lines[4:], b""])
    assert stream.tokens == COUNTED
    assert stream.done


def test_a_lf_that_follows_the_cr_that_ended_an_event_goes_where_the_event_went() -> None:
    content, counts = b'data: {"choices":[1]}\r\n\r\n', b'data: {"choices":[],' + COUNTS + b"}\r\n\r\n"
    done = b"data: [DONE]\r\n\r\n"
    chunks = [content[:-1], b"\n" + counts[:-1], b"\n" + done[:-1], b"\n"]
    sent, stream = follow(*chunks)
    assert sent == content + done
    assert stream.held == done


def test_a_whole_event_is_never_held_back() -> None:
    stream = StreamReader(SLUG, keep_usage=False)
    assert stream.feed(b'data: {"a":1}\n\ndata: {"b') == b'data: {"a":1}\n\n'
    assert stream.feed(b'":2}\n') == b""
    assert stream.feed(b"\n") == b'data: {"b":2}\n\n'
    assert stream.feed(b'data: {"c":3}\r\r') == b'data: {"c":3}\r\r'


def test_done_and_what_follows_is_held() -> None:
    stream = StreamReader(SLUG, keep_usage=False)
    assert stream.feed(b"data: 1\n\ndata: [DONE]\n\n: bye\n\nrest") == b"data: 1\n\n"
    assert stream.done
    stream.finish()
    assert stream.held == b"data: [DONE]\n\n: bye\n\nrest"


@pytest.mark.parametrize("done", [b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"id: 4\ndata: [DONE]\n\n"])
def test_spellings_of_done(done: bytes) -> None:
    sent, stream = follow(done)
    assert stream.done
    assert sent == done


def test_a_last_event_without_its_blank_line() -> None:
    sent, stream = follow(b'data: {"model":"x","choices":[],' + COUNTS + b"}", keep_usage=True)
    assert sent == b'data: {"model":"lab/model","choices":[],' + COUNTS + b"}"
    assert stream.tokens == COUNTED
    sent, stream = follow(b"data: [DONE]")
    assert (sent, stream.done) == (b"data: [DONE]", True)


def test_comments_and_other_fields_pass() -> None:
    text = b': keep-alive\n\nevent: ping\nid: 1\nretry: 5\n\nevent: x\ndata: {"model":"x","a":1}\nid: 7\n\n'
    sent, _ = follow(text)
    assert sent == text.replace(b'"x"', b'"lab/model"')


def test_counts_are_read_beside_other_fields() -> None:
    sent, stream = follow(b'event: chunk\ndata: {"choices":[],' + COUNTS + b"}\nid: 7\n\n", DONE)
    assert stream.tokens == COUNTED
    assert sent == DONE
    _, stream = follow(b'data: {"choices":[],' + COUNTS + b"}\nid: 7\n\n", DONE)
    assert stream.tokens == COUNTED


@pytest.mark.parametrize("other", [b"event: chunk\n", b"id: 7\n", b": ping\n"])
def test_the_blank_after_data_may_be_missing_beside_other_fields(other: bytes) -> None:
    """One blank after the colon is no part of the value, and none has to be there (HTML Living Standard, 9.2.6)."""
    sent, stream = follow(other + b'data:{"choices":[],' + COUNTS + b"}\n\n", DONE)
    assert (sent, stream.tokens) == (DONE, COUNTED)
    named = other + b'data:{"model":"lab/model","choices":[1]}\n\n'
    assert follow(named.replace(b"lab/model", b"theirs"))[0] == named
    assert follow(other + b"data:[DONE]\n\n")[1].done


def test_data_over_several_lines() -> None:
    counts = b'data: {"choices":[],\ndata: ' + COUNTS + b"\ndata: }\n\n"
    sent, stream = follow(counts, DONE)
    assert (sent, stream.tokens) == (DONE, COUNTED)
    assert follow(counts.replace(b"data: ", b"data:"), DONE)[1].tokens == COUNTED
    sent, _ = follow(b'id: 1\ndata: {"x":{"model":1},\ndata: "model":\ndata: "theirs"}\n\n')
    assert sent == b'id: 1\ndata: {"x":{"model":1},\ndata: "model":\ndata: "lab/model"}\n\n'


def test_the_usage_chunk_is_kept_for_who_asked() -> None:
    counts = b'data: {"model":"x","choices":[],' + COUNTS + b"}\n\n"
    sent, stream = follow(counts, DONE, keep_usage=True)
    assert sent == counts.replace(b'"x"', b'"lab/model"') + DONE
    assert stream.tokens == COUNTED


@pytest.mark.parametrize(
    "chunk",
    [
        b'{"choices":[{"delta":{"content":"hi"}}],"usage":null}',
        b'{"choices":[],"usage":null}',
        b'{"choices":[{"delta":{}}],' + COUNTS + b"}",
        b'{"choices":[{"delta":{"usage":{}}}]}',
        b'{"choices":[{"delta":{"content":"\\"usage\\":{"}}]}',
        b'{"usage":{"prompt_tokens":1}',
    ],
)
def test_what_is_not_the_usage_chunk_passes(chunk: bytes) -> None:
    event = b"data: " + chunk + b"\n\n"
    assert follow(event)[0] == event


def test_counts_that_ride_on_content_count_and_the_last_ones_win() -> None:
    first, last = COUNTS.replace(b":2,", b":1,"), COUNTS
    _, stream = follow(
        b'data: {"choices":[{"delta":{"content":"a"}}],' + first + b"}\n\n",
        b'data: {"choices":[{"delta":{"content":"b"}}],' + last + b"}\n\n",
        DONE,
    )
    assert stream.tokens == COUNTED


@pytest.mark.parametrize(
    "counts",
    [
        b"{}",
        b'{"prompt_tokens":-1,"completion_tokens":2}',
        b'{"prompt_tokens":5,"completion_tokens":-2}',
        b'{"prompt_tokens":5.5,"completion_tokens":2}',
        b'{"prompt_tokens":5,"completion_tokens":1e400}',
        b'{"prompt_tokens":5,"completion_tokens":Infinity}',
        b'{"prompt_tokens":5,"completion_tokens":2,"total_tokens":-1}',
        b'{"prompt_tokens":true,"completion_tokens":2}',
        b'{"prompt_tokens":"5","completion_tokens":2}',
        b'{"completion_tokens":2}',
        b'{"prompt_tokens":9007199254740993,"completion_tokens":2}',
        b'{"prompt_tokens":5,"completion_tokens":1' + b"0" * 5000 + b"}",
    ],
)
def test_counts_that_cannot_be_are_none(counts: bytes) -> None:
    body = b'{"choices":[],"usage":' + counts + b"}"
    assert answers.plain(body, SLUG).tokens is None
    sent, stream = follow(b"data: " + body + b"\n\n", DONE)
    assert stream.tokens is None
    assert sent.endswith(DONE)


@pytest.mark.parametrize(
    ("counts", "tokens"),
    [
        (b'{"prompt_tokens":5}', TokenCounts(input_tokens=5, output_tokens=0)),
        (b'{"prompt_tokens":5.0,"completion_tokens":1e1}', TokenCounts(input_tokens=5, output_tokens=10)),
        (b'{"prompt_tokens":5,"completion_tokens":null}', TokenCounts(input_tokens=5, output_tokens=0)),
        (b'{"prompt_tokens":5,"completion_tokens":2,"x":"\xff"}', TokenCounts(input_tokens=5, output_tokens=2)),
        (b'{"prompt_tokens":5,"completion_tokens":2,"cost":1e400}', TokenCounts(input_tokens=5, output_tokens=2)),
        (b'{"prompt_tokens":5,"prompt_tokens_details":null}', TokenCounts(input_tokens=5, output_tokens=0)),
        (
            b'{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":9}}',
            TokenCounts(input_tokens=5, output_tokens=0, cached_input_tokens=5),
        ),
        (
            b'{"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":-9}}',
            TokenCounts(input_tokens=5, output_tokens=0),
        ),
        (b'{"prompt_tokens":5,"prompt_tokens_details":[9]}', TokenCounts(input_tokens=5, output_tokens=0)),
    ],
)
def test_counts_that_are_odd_but_can_be(counts: bytes, tokens: TokenCounts) -> None:
    body = b'{"choices":[],"usage":' + counts + b"}"
    assert answers.plain(body, SLUG).tokens == tokens
    assert follow(b"data: " + body + b"\n\n")[1].tokens == tokens


@pytest.mark.parametrize(
    ("chunk", "named"),
    [
        (b'{"id":"1","model":"theirs","choices":[]}', b'{"id":"1","model":"lab/model","choices":[]}'),
        (b'{"id":"1","model" : "th\\"eirs"}', b'{"id":"1","model" : "lab/model"}'),
        (b'{"choices":[{}],"model":"theirs"}', b'{"choices":[{}],"model":"lab/model"}'),
        (b'{"choices":[{"model":"theirs"}]}', b'{"choices":[{"model":"theirs"}]}'),
        (b'{"x":{"model":"theirs"}}', b'{"x":{"model":"theirs"}}'),
        (b'{"model":"theirs","model":"own"}', b'{"model":"lab/model","model":"lab/model"}'),
        (b'{"x":{"model":"a"},"model":"b"}', b'{"x":{"model":"a"},"model":"lab/model"}'),
        (b'{"model":"b","x":{"model":"a"}}', b'{"model":"lab/model","x":{"model":"a"}}'),
        (
            b'{"choices":[{"delta":{"content":"\\"model\\":\\"x\\""}}]}',
            b'{"choices":[{"delta":{"content":"\\"model\\":\\"x\\""}}]}',
        ),
        (b'{"object":"model","id":1}', b'{"object":"model","id":1}'),
        (b'{"choices":[],"model":null}', b'{"choices":[],"model":"lab/model"}'),
        (b'[{"model":"theirs"}]', b'[{"model":"theirs"}]'),
    ],
)
def test_the_slug_takes_the_models_place_at_the_top_and_nowhere_else(chunk: bytes, named: bytes) -> None:
    assert follow(b"data: " + chunk + b"\n\n")[0] == b"data: " + named + b"\n\n"
    assert follow(b"data:" + chunk + b"\r\n\r\n")[0] == b"data:" + named + b"\r\n\r\n"
    assert answers.plain(chunk, SLUG).body == named


@pytest.mark.parametrize("body", [b"", b"oops", b"[1]", b'"x"', b'{"id":"x"', b"\x1f\x8b\xff", b"[" * 100_000, b"\0\1"])
def test_an_answer_that_is_no_json_object_passes_and_its_transport_is_not_billed(body: bytes) -> None:
    assert answers.plain(body, SLUG) == answers.Plain(body, None, min(1, len(body)), failed=False)
    assert follow(b"data: " + body + b"\n\n")[0] == b"data: " + body + b"\n\n"


@pytest.mark.parametrize(
    ("text", "length"),
    [
        (b'{"delta":{"content":"hello"}}', 5),
        (b'{"delta":{"content": "a\\"b"}}', 4),
        (b'{"message":{"content":null,"refusal":"no"}}', 2),
        (b'{"delta":{"reasoning_content":"hm","content":"so"}}', 4),
        (b'{"delta":{"tool_calls":[{"function":{"name":"look","arguments":"{}"}}]}}', 6),
        (b'{"delta":{"content":[{"type":"text","text":"hello"}]}}', 5),
        (b'{"delta":{"role":"assistant","content":""}}', 1),
        (b'{\n "content"\n :\t"abc"}', 3),
        (b"", 0),
    ],
)
def test_what_counts_as_content_where_nothing_can_be_read(text: bytes, length: int) -> None:
    assert written.unread_bytes(text) == length


@pytest.mark.parametrize(
    ("content", "prompt", "tokens"),
    [(0, 0, (1, 0)), (1, 0, (1, 1)), (4, 7, (7, 1)), (5, 7, (7, 2))],
)
def test_an_estimate_is_never_zero_where_something_was_sent(content: int, prompt: int, tokens: tuple[int, int]) -> None:
    count = answers.to_bill(None, lambda: TokenCounts(input_tokens=prompt, output_tokens=9), content)
    assert count.source is UsageSource.ESTIMATED
    assert (count.tokens.input_tokens, count.tokens.output_tokens) == tokens


def test_the_providers_counts_are_taken_as_they_are() -> None:
    def unasked() -> TokenCounts:
        raise AssertionError("an estimate was made for nothing")

    nothing = TokenCounts(input_tokens=0, output_tokens=0)
    assert answers.to_bill(nothing, unasked, 8) == answers.Count(nothing, UsageSource.PROVIDER)


def test_an_event_of_more_than_16_mib_is_passed_on_unread() -> None:
    stream = StreamReader(SLUG, keep_usage=False)
    event = b"data: ".ljust(16 * 2**20, b"x")
    assert stream.feed(event[:100]) == stream.feed(event[100:]) == b""
    assert stream.feed(b"x") == event + b"x"
    assert stream.content_bytes == 1
    assert stream.feed(b"\n\ndata: 1\n\n") == b"\n\ndata: 1\n\n"


def test_content_is_counted_over_all_events_the_client_sees() -> None:
    _, stream = follow(b'data: {"choices":[{"delta":{"content":"abc"}}]}\n\n' * 3, DONE)
    assert stream.content_bytes == 9


def test_counts_beyond_any_model_are_as_good_as_none() -> None:
    def answer(count: int) -> bytes:
        return b'{"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":1}}' % count

    assert answers.plain(answer(10**9), SLUG).tokens is not None
    assert answers.plain(answer(10**9 + 1), SLUG).tokens is None


def test_of_counts_with_the_same_sum_the_last_ones_are_billed() -> None:
    """An upstream may say only in its last chunk how much of the prompt was cached."""
    without_cached = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
    _, stream = follow(b"data: " + without_cached + b"\n\n", b'data: {"choices":[],' + COUNTS + b"}\n\n", DONE)
    assert stream.tokens == COUNTED


def test_counts_that_come_again_take_nothing_back() -> None:
    stream = answers.StreamReader(SLUG, keep_usage=False)
    for tokens in (5, 9, 0):
        stream.feed(b'data: {"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d}}\n\n' % (tokens, tokens))
    assert stream.tokens == TokenCounts(input_tokens=9, output_tokens=9)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_stream_in_pieces_of_few_bytes_is_the_same_stream(size: int) -> None:
    whole = b'data: {"model":"upstream","choices":[{"delta":{"content":"a"}}]}\n\n\ndata: [DONE]\n\n'
    at_once, in_pieces = (
        answers.StreamReader("lab/model", keep_usage=False),
        answers.StreamReader("lab/model", keep_usage=False),
    )
    passed = at_once.feed(whole)
    assert b"".join(in_pieces.feed(whole[at : at + size]) for at in range(0, len(whole), size)) == passed
    assert (in_pieces.held, in_pieces.done) == (at_once.held, True)
