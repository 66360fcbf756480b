"""Where a stream is whole, and what is billed where it is not (contract 3, 4)."""

import pytest

from proxy.dialects import answers
from proxy.limits.estimate import TokenCounts
from schemas.usage import UsageSource
from tests.unit.proxy.dialects.test_answers import DONE, follow


def choice(index: int, finish: str | None = None, text: str = "") -> bytes:
    end = b"null" if finish is None else b'"%s"' % finish.encode()
    delta = b'{"content":"%s"}' % text.encode()
    return b'{"choices":[{"index":%d,"delta":%s,"finish_reason":%s}]}' % (index, delta, end)


PREVIEW = b'{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":1}}'


@pytest.mark.parametrize(
    ("chunks", "whole"),
    [
        ([], False),
        ([choice(0, text="a")], False),
        ([choice(0, "stop", "a")], True),
        ([choice(0, text="a"), choice(1, text="b"), choice(0, "stop")], False),
        ([choice(0, text="a"), choice(1, text="b"), choice(0, "stop"), choice(1, "length")], True),
        ([choice(0, "stop", "a"), choice(0)], True),
        ([choice(0, "", "a")], False),
        ([choice(0, text="a"), PREVIEW], True),
        ([PREVIEW, choice(0, text="a")], False),
        ([choice(0, "stop", "a"), b'{"error":{"message":"no"}}'], False),
        ([choice(0, "stop", "a"), b'{"error":{}}'], False),
        ([choice(0, "stop", "a"), b'{"error":null}'], True),
        ([choice(0, "stop", "a"), b'{"error":false}'], True),
    ],
)
def test_what_is_whole_without_done(chunks: list[bytes], *, whole: bool) -> None:
    _, stream = follow(*(b"data: " + chunk + b"\n\n" for chunk in chunks))
    assert stream.is_whole == whole


def test_after_an_error_nothing_looks_like_success_and_the_error_is_told() -> None:
    error = b'data: {"error":{"message":"no"},"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n'
    sent, stream = follow(error, DONE)
    assert sent == error
    assert stream.tokens == TokenCounts(input_tokens=5, output_tokens=2)
    assert follow(error[:-2])[0] == error, "a client drops an event without its blank line"
    assert follow(error.replace(b"\n", b"\r\n"), DONE.replace(b"\n", b"\r\n"))[0] == error.replace(b"\n", b"\r\n")


def unlikely() -> TokenCounts:
    return TokenCounts(input_tokens=9, output_tokens=99)


@pytest.mark.parametrize(
    ("reported", "written_bytes", "billed"),
    [
        (None, 40, (9, 10, UsageSource.ESTIMATED)),
        ((5, 4), 40, (5, 10, UsageSource.ESTIMATED)),
        ((5, 10), 40, (5, 10, UsageSource.PROVIDER)),
        ((5, 11), 40, (5, 11, UsageSource.PROVIDER)),
        ((0, 11), 40, (9, 11, UsageSource.ESTIMATED)),
    ],
)
def test_what_is_cut_short_is_never_billed_below_what_was_sent(
    reported: tuple[int, int] | None, written_bytes: int, billed: tuple[int, int, UsageSource]
) -> None:
    tokens = None if reported is None else TokenCounts(input_tokens=reported[0], output_tokens=reported[1])
    count = answers.cut_short(tokens, unlikely, written_bytes)
    assert (count.tokens.input_tokens, count.tokens.output_tokens, count.source) == billed
