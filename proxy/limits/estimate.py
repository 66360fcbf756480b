"""Decides how many tokens a request is expected to use, before anyone knows (contract 3.1)."""

import re
from bisect import bisect_left, insort
from collections import deque
from typing import TypeVar

import msgspec

from schemas.usage import MOST_TOKENS

BYTES_PER_TOKEN = 4
FIRST_SIZE = 512
"""Completion tokens assumed of a slug that has answered nothing yet."""

_MOST_ENCODED = 1000
_MOST_CHOICES = 128
_LEAST_RECORDING = 1024
_DATA_MEMBER = re.compile(rb'"data"[ \t\r\n]{0,9}:[ \t\r\n]{0,9}"(?=[A-Za-z0-9+/]{64})')
_DATA_URL = re.compile(rb'"data:(?:image|audio|video|application)/[^",\s]{1,250};base64,')
_REMEMBERED = 50
"""Answers of each group and slug: a few hundred bytes."""
_K = TypeVar("_K")


class TokenCounts(msgspec.Struct, frozen=True):
    """What one request used or will use: a contract's `Tokens` at a tenth of their cost."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int = 0
    """Part of the input, not beside it."""

    @property
    def by_price(self) -> tuple[int, int, int]:
        """The input, what of it was cached, and the output: in the order of prices."""
        return self.input_tokens, self.cached_input_tokens, self.output_tokens


class Expected(msgspec.Struct, frozen=True):
    """What a request will use, as far as can be said before."""

    tokens: TokenCounts
    """The likely counts, at least 1 in: billed only where nothing better is ever known."""
    reserved: int
    """What is reserved: at least the real count, where the prompt is plain text and the client bounds the answer."""
    reserved_output: int
    """What of it is for the answer."""


NOTHING = Expected(TokenCounts(0, 0), 0, 0)


def prompt_bound(body: bytes, token_ids: int = 0) -> int:
    """Return what a prompt comes to at most where it is plain text, by the raw request.

    That many `token_ids` stand in it instead of text.
    """
    return max(token_ids, -(-(len(body) - _encoded_bytes(body)) // BYTES_PER_TOKEN))


def expected(prompt: int, n: int | None, max_tokens: int | None, likely: int, most: int) -> Expected:
    """Return both estimates of one request.

    `prompt` is `prompt_bound`'s. `n` and `max_tokens` (or `max_completion_tokens`) are as the client gave them; None,
    and what no upstream accepts (below 1), count as not given. `likely` is what a choice comes to that nobody bounds,
    and `most` what the model can answer: a client's claim reserves no more, nor more than 128 choices.
    """
    choices = min(n, _MOST_CHOICES) if n is not None and n > 0 else 1
    likely = min(likely, most)
    bound = min(max_tokens, most) if max_tokens is not None and max_tokens > 0 else likely
    return Expected(
        tokens=TokenCounts(min(max(1, prompt), MOST_TOKENS), min(choices * min(bound, likely), MOST_TOKENS)),
        reserved=prompt + choices * bound,
        reserved_output=choices * bound,
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


class _Answers:
    """The completion tokens of the last answers, and the upper quantile of them."""

    __slots__ = ("_by_age", "_by_size")

    def __init__(self) -> None:
        self._by_age: deque[int] = deque()
        self._by_size: list[int] = []

    @property
    def quantile(self) -> int:
        """Return what nine of ten were not above."""
        return self._by_size[-(len(self._by_size) // 10) - 1]

    def learn(self, tokens: int) -> None:
        by_age, by_size = self._by_age, self._by_size
        by_age.append(tokens)
        if len(by_age) > _REMEMBERED:
            oldest = by_age.popleft()
            if oldest == tokens:
                return
            del by_size[bisect_left(by_size, oldest)]
        insort(by_size, tokens)


class CompletionSizes:
    """How many tokens a choice comes to that its client does not bound: an upper quantile of each group's last answers.

    A group that has had no answer of a slug begins with the slug's own over all groups. Holds at most `size` of each.
    """

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._slugs: dict[str, _Answers] = {}
        self._groups: dict[tuple[str, str], _Answers] = {}

    def likely(self, group_id: str, slug: str) -> int:
        """Return the tokens of one choice that nine of ten are not above."""
        known = self._groups.get((group_id, slug)) or self._slugs.get(slug)
        return FIRST_SIZE if known is None else known.quantile

    def learn(self, group_id: str, slug: str, completion_tokens: int, choices: int) -> None:
        """Take in one answer; `choices` is how many came, whatever was asked for."""
        each = -(-completion_tokens // max(1, choices))
        self._of(self._groups, (group_id, slug)).learn(each)
        self._of(self._slugs, slug).learn(each)

    def _of(self, known: dict[_K, _Answers], key: _K) -> _Answers:
        found = known.get(key)
        if found is not None and len(known) * 2 <= self._size:  # nobody is forgotten soon
            return found
        known.pop(key, None)
        if found is None:
            if len(known) >= self._size:
                del known[next(iter(known))]
            found = _Answers()
        known[key] = found  # the last one: who had no answer for longest is forgotten first
        return found
