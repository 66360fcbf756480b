"""Reads the token counts of the Messages API, and says them as chat completions do.

`input_tokens` is without both cache counts, so what a request used in is the sum of the three
(https://platform.claude.com/docs/en/build-with-claude/prompt-caching). They are summed here and nowhere else.
"""

from typing import Any

_INPUTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_BESIDE = ("compaction", "advisor_message")
"""Iterations whose counts are not in those at the top."""


def merge(known: dict[str, Any], news: Any) -> None:
    """Take what a later event of a stream says: a value replaces, what is absent or null does not."""
    for name, value in (news if isinstance(news, dict) else {}).items():
        if isinstance(value, dict) and isinstance(known.get(name), dict):
            merge(known[name], value)
        elif value is not None:
            known[name] = value


def as_chat(usage: dict[str, Any]) -> dict[str, Any] | None:
    """Return a chat completion's `usage`; None where the input was not counted."""
    if "input_tokens" not in usage:
        return None
    counted = [usage, *_iterations(usage)]
    prompt = sum(_count(one, name) for one in counted for name in _INPUTS)
    completion = sum(_count(one, "output_tokens") for one in counted)
    details = usage.get("output_tokens_details")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": sum(_count(one, "cache_read_input_tokens") for one in counted),
            "cache_write_tokens": sum(_count(one, "cache_creation_input_tokens") for one in counted),
        },
        "completion_tokens_details": {
            "reasoning_tokens": _count(details, "thinking_tokens") if isinstance(details, dict) else 0
        },
    }


def _iterations(usage: dict[str, Any]) -> list[dict[str, Any]]:
    found = usage.get("iterations")
    return [
        one
        for one in (found if isinstance(found, list) else ())
        if isinstance(one, dict) and one.get("type") in _BESIDE
    ]


def _count(usage: dict[str, Any], name: str) -> int:
    """Return a count, 0 where there is none; what cannot be one is left to who bills, which refuses a negative."""
    value = usage.get(name)
    return value if isinstance(value, int) else 0
