"""Decides how many tokens a request is expected to use, before anyone knows (contract 3.1).

Never takes a client's number for more than a claim, and never looks at an answer: that is `dialects.answers`.
"""

import math
import re
from dataclasses import dataclass

from schemas.usage import MOST_TOKENS, Tokens

BYTES_PER_TOKEN = 4
FIRST_MEAN = 512
"""Completion tokens assumed of a slug that has answered nothing yet."""

_MOST_TOKENS = 2**53
_MOST_ENCODED = 1000
_MOST_CHOICES = 128
_LEAST_RECORDING = 1024
_DATA_MEMBER = re.compile(rb'"data"[ \t\r\n]{0,9}:[ \t\r\n]{0,9}"(?=[A-Za-z0-9+/]{64})')
_DATA_URL = re.compile(rb'"data:(?:image|audio|video|application)/[^",\s]{1,250};base64,')
_WEIGHT = 1 / 16


@dataclass(frozen=True, slots=True)
class Expected:
    """What a request will use, as far as can be said before."""

    tokens: Tokens
    """The likely counts, at least 1 in: billed only where nothing better is ever known."""
    reserved: int
    """What is reserved: at least the real count, where the prompt is plain text and the client bounds the answer."""


NOTHING = Expected(Tokens(input_tokens=0, output_tokens=0), 0)


def expected(body: bytes, n: int | None, max_tokens: int | None, completion_mean: int, token_ids: int = 0) -> Expected:
    """Return both estimates of one request.

    `body` is the raw request. `n` and `max_tokens` (or `max_completion_tokens`) are as the client gave them; None, and
    what no upstream accepts (below 1), count as not given, and no number takes an estimate above 2^53. That
    many `token_ids` stand in the prompt instead of text.
    """
    prompt = max(token_ids, -(-(len(body) - _encoded_bytes(body)) // BYTES_PER_TOKEN))
    choices = n if n is not None and n > 0 else 1
    most = max_tokens if max_tokens is not None and max_tokens > 0 else completion_mean
    likely = min(min(choices, _MOST_CHOICES) * min(most, completion_mean), MOST_TOKENS)
    return Expected(
        tokens=Tokens(input_tokens=min(max(1, prompt), MOST_TOKENS), output_tokens=likely),
        reserved=min(prompt + choices * most, _MOST_TOKENS),
    )


def _encoded_bytes(body: bytes) -> int:
    """Sum what is base64: `data:` URLs, and `data` members that begin like it, as recordings have them.

    A URL must be a whole JSON string: inside a longer text the model reads it as text. Beyond a thousand, the rest
    counts as text: a body of nothing else must not hold the event loop.
    """
    size = 0
    start = body.find(b'"data')
    for _ in range(_MOST_ENCODED):
        if start < 0:
            break
        begin = start + 1
        member = _DATA_MEMBER.match(body, start)
        if member is not None:
            begin = member.end()
        end = body.find(b'"', begin)
        if end < 0:
            break
        if member is not None:
            is_encoded = end - begin >= _LEAST_RECORDING
        else:  # a quote behind a backslash is inside a string: JSON as text, a tool call's arguments
            is_encoded = body[start - 1 : start] != b"\\" and _DATA_URL.match(body, start) is not None
        if is_encoded and body.find(b" ", begin, end) < 0:
            size += end - begin
        start = body.find(b'"data', end)
    return size


class CompletionMeans:
    """The running mean of completion tokens per slug, newer answers weighing more. Holds at most `size` slugs."""

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._means: dict[str, float] = {}

    def mean(self, slug: str) -> int:
        """Return the mean of one choice's tokens, rounded up."""
        return math.ceil(self._means.get(slug, FIRST_MEAN))

    def learn(self, slug: str, completion_tokens: int, n: int = 1) -> None:
        """Take in one answer of `n` choices (at least 1) that together had `completion_tokens`."""
        each = completion_tokens / n
        known = self._means.get(slug)
        if known is None:
            if len(self._means) >= self._size:
                del self._means[next(iter(self._means))]
            self._means[slug] = each
        else:
            self._means[slug] = known + (each - known) * _WEIGHT
