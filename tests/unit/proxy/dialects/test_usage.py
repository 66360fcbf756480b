"""Each server's way to report counts, and that no other count is read in their place."""

from typing import Any

import pytest

from proxy.dialects import usage
from proxy.dialects.usage import ROWS, What
from proxy.limits.estimate import TokenCounts
from schemas.usage import MOST_TOKENS

OPENAI = {"prompt_tokens": 1000, "completion_tokens": 50}


def tokens(prompt: int, completion: int, cached: int = 0) -> TokenCounts:
    return TokenCounts(input_tokens=prompt, output_tokens=completion, cached_input_tokens=cached)


def at(path: tuple[str, ...], value: Any) -> Any:
    """Return a value at the end of a path."""
    for name in reversed(path):
        value = [{}, value] if name == "*" else {name: value}
    return value


@pytest.mark.parametrize("row", [row for row in ROWS if row.what is What.USAGE], ids=lambda row: row.dialect)
def test_each_place_of_usage_is_read(row: usage.Row) -> None:
    assert usage.reported(at(row.path, OPENAI)) == tokens(1000, 50)


@pytest.mark.parametrize("row", [row for row in ROWS if row.what is What.CACHED], ids=lambda row: row.dialect)
def test_each_name_of_the_cached_part_is_read_and_is_never_above_the_input(row: usage.Row) -> None:
    assert usage.counts(OPENAI | at(row.path, 640)) == tokens(1000, 50, 640)
    assert usage.counts(OPENAI | at(row.path, 1001)) == tokens(1000, 50, 1000)
    assert usage.counts(OPENAI | at(row.path, -1)) == usage.counts(OPENAI | at(row.path, "many")) == tokens(1000, 50)


@pytest.mark.parametrize(
    ("reported", "counted"),
    [
        ({"input_tokens": 9, "output_tokens": 4}, tokens(9, 4)),
        ({"input_tokens": 9, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 3}}, tokens(9, 4, 3)),
        ({"prompt_tokens": 0, "completion_tokens": 0, "input_tokens": 9, "output_tokens": 4}, tokens(9, 4)),
        ({"prompt_tokens": 9, "completion_tokens": 4, "input_tokens": 900, "output_tokens": 400}, tokens(9, 4)),
        ({"input_tokens": 9, "output_tokens": 4, "cache_creation_input_tokens": 5}, tokens(14, 4)),
        (
            {"input_tokens": 9, "output_tokens": 4, "cache_creation_input_tokens": 5, "cache_read_input_tokens": 100},
            tokens(114, 4, 100),
        ),
        ({"prompt_tokens": 109, "completion_tokens": 4, "cache_read_input_tokens": 100}, tokens(109, 4, 100)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 135}, tokens(32, 103)),
        ({"prompt_tokens": 32, "completion_tokens": 9, "total_tokens": 40}, tokens(32, 9)),
        ({"prompt_tokens": 32, "completion_tokens": None, "total_tokens": 40}, tokens(32, 8)),
        ({"prompt_tokens": 5.0, "completion_tokens": 2.0, "total_tokens": 7.0}, tokens(5, 2)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, tokens(0, 0)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": MOST_TOKENS + 5}, None),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7.5}, None),
        ({"prompt_tokens": float("nan"), "completion_tokens": 2}, None),
        ({"prompt_tokens": True, "completion_tokens": 2}, None),
        ({"completion_tokens": 2}, None),
        ([], None),
        (None, None),
    ],
)
def test_what_a_usage_says(reported: Any, counted: TokenCounts | None) -> None:
    assert usage.counts(reported) == counted


def test_of_several_places_the_first_with_counts_is_read_and_there_the_last() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0}
    choices = [{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}, {"usage": OPENAI}, {"usage": zeros}]
    groq = {"usage": {"prompt_tokens": 7, "completion_tokens": 7}}
    assert usage.reported({"usage": zeros, "choices": choices, "x_groq": groq}) == tokens(1000, 50)
    assert usage.reported({"usage": {"prompt_tokens": -1}, "choices": None, "x_groq": groq}) == tokens(7, 7)
    assert usage.reported({"usage": zeros, "choices": 5, "x_groq": "busy"}) == tokens(0, 0)
    assert usage.reported({"choices": [{"delta": {"usage": OPENAI}}]}) is None


def test_every_row_says_where_it_comes_from() -> None:
    assert all(row.dialect and row.source.startswith("https://") for row in ROWS)
