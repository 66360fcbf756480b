"""What of an answer the model wrote: the base of every estimate of output."""

from typing import Any

import pytest

from proxy.dialects import written

CITED = [{"type": "url_citation", "url_citation": {"content": "page " * 4000}}]
CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"a":1}'}}


@pytest.mark.parametrize(
    ("message", "size"),
    [
        ({"role": "assistant", "content": "hello"}, 5),
        ({"content": "ü" * 40}, 80),
        ({"content": None, "refusal": "no"}, 2),
        ({"content": "so", "reasoning_content": "hm"}, 4),
        ({"reasoning": "think ", "reasoning_content": "think ", "reasoning_details": [{"text": "think "}]}, 6),
        ({"reasoning": "think", "reasoning_content": ""}, 5),
        ({"content": "short", "annotations": CITED, "citations": ["https://example.org"]}, 5),
        ({"content": [{"type": "text", "text": "hello", "annotations": CITED}]}, 5),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, "so"]}, 4),
        ({"tool_calls": [CALL, CALL]}, 22),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "run", "input": "ls"}}]}, 5),
        ({"tool_calls": [{"function": {"name": "look", "arguments": {"a": 1}}}]}, 11),
        ({"function_call": {"name": "look", "arguments": "{}"}}, 6),
        ({"audio": {"id": "audio_1", "data": "QUJD" * 1000, "transcript": "hello"}}, 5),
        ({"content": 5, "tool_calls": "x", "audio": 1, "function_call": []}, 0),
        ({"content": [[[[[[["deep"]]]]]]]}, 0),
    ],
)
def test_a_message(message: dict[str, Any], size: int) -> None:
    for choice in ({"delta": message}, {"message": message}):
        assert written.choices_bytes([choice, choice]) == 2 * size


def test_a_text_completion_and_what_is_no_choice() -> None:
    assert written.choices_bytes([{"index": 0, "text": "hello"}]) == 5
    assert written.choices_bytes([None, 1, {}, {"delta": None}]) == written.choices_bytes({"a": 1}) == 0
