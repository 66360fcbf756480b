"""Knows under which names servers report token counts: one table, a row for each server's way, with its source.

A new server's way is a new row. Where several rows are there, the first one with a count that is not zero is read.
"""

from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from typing import Any, NamedTuple

from proxy.limits.estimate import TokenCounts
from schemas.usage import MOST_TOKENS


class What(Enum):
    """What a row's path leads to."""

    USAGE = "usage"
    """The object that holds the counts; from the top of an answer or chunk."""
    INPUT = "input"
    OUTPUT = "output"
    CACHED = "cached"
    """The part of the input that was read from a cache."""
    BESIDE = "beside"
    """Input that is not in the input count."""


class Row(NamedTuple):
    """One name of one count."""

    what: What
    path: tuple[str, ...]
    """Members from outside to inside; `*` stands for each element of a list. Input and output have one name each."""
    dialect: str
    source: str


_OPENAI = "https://platform.openai.com/docs/api-reference/chat/object"
_RESPONSES = "https://platform.openai.com/docs/api-reference/responses/object"
_MESSAGES = "https://platform.claude.com/docs/en/api/messages"
ROWS = (
    Row(What.USAGE, ("usage",), "OpenAI", _OPENAI),
    Row(What.USAGE, ("choices", "*", "usage"), "Moonshot", "https://github.com/higress-group/higress/pull/1568"),
    Row(What.USAGE, ("x_groq", "usage"), "Groq", "https://github.com/vercel/ai/issues/1651"),
    Row(What.INPUT, ("prompt_tokens",), "OpenAI", _OPENAI),
    Row(What.INPUT, ("input_tokens",), "Responses, Messages", _RESPONSES),
    Row(What.OUTPUT, ("completion_tokens",), "OpenAI", _OPENAI),
    Row(What.OUTPUT, ("output_tokens",), "Responses, Messages", _RESPONSES),
    Row(What.CACHED, ("prompt_tokens_details", "cached_tokens"), "OpenAI", _OPENAI),
    Row(What.CACHED, ("input_tokens_details", "cached_tokens"), "Responses", _RESPONSES),
    Row(What.CACHED, ("cached_tokens",), "Moonshot", "https://platform.kimi.ai/docs/api/chat"),
    Row(What.CACHED, ("prompt_cache_hit_tokens",), "DeepSeek", "https://api-docs.deepseek.com/guides/kv_cache"),
    Row(What.CACHED, ("cache_read_input_tokens",), "Messages", _MESSAGES),
    Row(What.BESIDE, ("cache_creation_input_tokens",), "Messages", _MESSAGES),
    Row(What.BESIDE, ("cache_read_input_tokens",), "Messages", _MESSAGES),
)
_USUAL_NAMES = {"prompt_tokens", "completion_tokens", "total_tokens"}
"""Where these are all, and right, nothing else is looked for."""
TOTAL = "total_tokens"
"""Where it is above input and output together, the rest is output: reasoning that xAI counts there and nowhere else
(https://docs.x.ai/docs/key-information/consumption-and-rate-limits)."""


def _paths(what: What) -> tuple[tuple[str, ...], ...]:
    return tuple(row.path for row in ROWS if row.what is what)


_USAGES, _INPUTS, _OUTPUTS, _CACHED, _BESIDE = map(_paths, What)


def reported(answer: Mapping[str, Any]) -> TokenCounts | None:
    """Return the counts that an answer or chunk reports: the last that are not all zeros, in the first place with any.

    None where it reports none, or what cannot be a count (negative, a fraction, above `MOST_TOKENS`).
    """
    zeros: TokenCounts | None = None
    for path in _USAGES:
        for usage in reversed(_found(answer, path)):
            tokens = counts(usage)
            if tokens is not None and is_counted(tokens):
                return tokens
            zeros = zeros or tokens
    return zeros


def is_counted(tokens: TokenCounts) -> bool:
    """Say whether counts are more than the zeros that servers send before they have counted."""
    return bool(tokens.input_tokens or tokens.output_tokens)


def counts(usage: Any) -> TokenCounts | None:
    """Return the counts of one usage object; None where the input is missing, or a count cannot be one."""
    if not isinstance(usage, dict):
        return None
    if usage.keys() == _USUAL_NAMES:
        prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
        are_counts = type(prompt) is type(completion) is int and 0 < prompt <= MOST_TOKENS and completion > 0
        if are_counts and completion <= MOST_TOKENS and usage[TOTAL] == prompt + completion:
            return TokenCounts(prompt, completion)
    try:
        prompt, completion = _first(usage, _INPUTS), _first(usage, _OUTPUTS)
        if prompt is None:
            return None
        if "prompt_tokens" not in usage and "input_tokens_details" not in usage:
            prompt += sum(_count(_at(usage, path)) for path in _BESIDE)
        total = _count(usage.get(TOTAL))
    except ValueError:
        return None
    completion = max(completion or 0, total - prompt)
    if prompt > MOST_TOKENS or completion > MOST_TOKENS:
        return None
    return TokenCounts(input_tokens=prompt, output_tokens=completion, cached_input_tokens=min(_cached(usage), prompt))


def _cached(usage: dict[str, Any]) -> int:
    for path in _CACHED:
        if path[0] in usage and (value := _at(usage, path)):
            with suppress(ValueError):  # of what is only a part of a count, one that cannot be is as good as none
                return _count(value)
    return 0


def _first(usage: dict[str, Any], names: tuple[tuple[str, ...], ...]) -> int | None:
    """Return the first count that is not zero, else zero where any is there, else None. Raise ValueError."""
    found: int | None = None
    for (name,) in names:
        if name in usage:
            found = _count(usage[name])
            if found:
                break
    return found


def _count(value: Any) -> int:
    """Return a count: a whole float is its integer, null is 0. Raise ValueError of what is none."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and 0 <= value <= MOST_TOKENS:
        return value
    if value is None:
        return 0
    raise ValueError


def _at(usage: dict[str, Any], path: tuple[str, ...]) -> Any:
    """Return what a path without `*` leads to; None where nothing is there."""
    value: Any = usage
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _found(answer: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
    """Return all that a path leads to."""
    values: list[Any] = [answer]
    for name in path:
        if name == "*":
            values = [element for value in values if isinstance(value, list) for element in value]
        else:
            values = [value[name] for value in values if isinstance(value, dict) and name in value]
    return values
