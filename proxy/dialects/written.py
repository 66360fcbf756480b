"""Says how much the model wrote in an answer, for the estimate where no server reports counts.

Counted is what a model generates: content, refusals, reasoning, the names and arguments of tool calls, transcripts of
audio. Not counted is what a server puts beside it (citations, annotations, log probabilities), and what it says twice.
"""

import re
from collections.abc import Callable
from typing import Any

import msgspec

_REASONING = frozenset(("reasoning_content", "reasoning", "reasoning_details", "thinking"))
"""Names of one and the same: servers send it under two of them (https://github.com/vllm-project/vllm/pull/27752)."""
_PART_TEXTS = ("text", "refusal", "thinking", "summary", "transcript")
_DEEPEST = 4
_CONTENT = re.compile(
    rb'"(?:content|reasoning_content|reasoning|refusal|arguments|name|input|text)"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"',
    re.DOTALL,
)


def answer_bytes(answer: dict[str, Any]) -> int:
    """Return the UTF-8 bytes of what the model wrote in an answer or chunk."""
    return choices_bytes(answer.get("choices"))


def choices_bytes(choices: Any) -> int:
    """Return the UTF-8 bytes of what the model wrote in `choices` of an answer or chunk."""
    return sum(map(choice_bytes, choices)) if isinstance(choices, list) else 0


def choice_bytes(choice: Any) -> int:
    """Return the UTF-8 bytes of what the model wrote in one of the `choices`."""
    if not isinstance(choice, dict):
        return 0
    message = choice.get("delta") or choice.get("message")
    if isinstance(message, dict):
        return message_bytes(message)
    return text_bytes(choice.get("text"))


def unread_bytes(text: bytes) -> int:
    """Return the bytes of what seems to be generated text where no client can read it: at least 1 where there is any.

    What cannot be read is not billed by the size of its transport.
    """
    return sum(len(content) for content in _CONTENT.findall(text)) or min(1, len(text))


def message_bytes(message: dict[str, Any]) -> int:
    """Return the UTF-8 bytes of the text in a message; a prompt's have the same members as an answer's."""
    if len(message) == 1 and type(content := message.get("content")) is str:  # what nearly each chunk of a stream has
        return len(content) if content.isascii() else len(content.encode())
    size = reasoning = 0
    for name, value in message.items():
        if not value:
            continue
        if name in _REASONING:
            reasoning = max(reasoning, text_bytes(value))
        elif (read := _READERS.get(name)) is not None:
            size += read(value)
    return size + reasoning


def text_bytes(value: Any, depth: int = 0) -> int:
    """Return the UTF-8 bytes of a string, or of the texts in a list of parts."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if depth > _DEEPEST:
        return 0
    if isinstance(value, list):
        return sum(text_bytes(part, depth + 1) for part in value)
    if isinstance(value, dict):
        return sum(text_bytes(value[name], depth + 1) for name in _PART_TEXTS if name in value)
    return 0


def _tool_calls(calls: Any) -> int:
    if not isinstance(calls, list):
        return 0
    return sum(
        _called(call[kind])
        for call in calls
        if isinstance(call, dict)
        for kind in ("function", "custom")
        if kind in call
    )


def _called(function: Any) -> int:
    """Return the bytes of a call's name and its arguments, which some servers send as an object instead of a string."""
    if not isinstance(function, dict):
        return 0
    size = text_bytes(function.get("name"))
    for name in ("arguments", "input"):
        value = function.get(name)
        size += len(msgspec.json.encode(value)) if isinstance(value, dict) else text_bytes(value)
    return size


_READERS: dict[str, Callable[[Any], int]] = {
    "content": text_bytes,
    "refusal": text_bytes,
    "tool_calls": _tool_calls,
    "function_call": _called,
    "audio": text_bytes,
}
