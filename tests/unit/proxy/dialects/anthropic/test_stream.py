"""Streams of the Messages API as a client of chat completions gets them."""

import json
from typing import Any

import openai
import pytest

from proxy.dialects.anthropic import stream
from proxy.dialects.anthropic.stream import TranslatedStream
from tests.unit.proxy.dialects.anthropic import sdk, vendor
from tests.unit.proxy.dialects.anthropic.vendor import STOP, added, closed, delta, opened, start

CALL = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
TEXT = {"type": "text", "text": ""}
DONE = b"data: [DONE]\n\n"


def follow(*told: dict[str, Any]) -> tuple[bytes, TranslatedStream]:
    found = TranslatedStream(created=1700000000)
    sent = found.feed(vendor.wire(list(told)))
    return sent + found.finish(), found


def deltas(*told: dict[str, Any]) -> list[dict[str, Any]]:
    sent, found = follow(start(), *told, delta(), STOP)
    assert found.done
    chunks = list(sdk.chunks(sent))
    return [chunk.choices[0].delta.to_dict() for chunk in chunks if chunk.choices][1:-1]


def arguments(*told: dict[str, Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for said in deltas(*told):
        for call in said.get("tool_calls", ()):
            found[call["index"]] = found.get(call["index"], "") + call["function"].get("arguments", "")
    return found


def counts(*told: dict[str, Any]) -> Any:
    chunks = list(sdk.chunks(follow(*told)[0]))
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    return chunks[-1].usage.to_dict()


def test_each_field_as_both_sdks_read_it() -> None:
    told = vendor.events(vendor.BLOCKS, "tool_use")
    theirs = sdk.streamed_message(vendor.wire(told))
    chunks = list(sdk.chunks(follow(*told)[0]))
    assert {(chunk.id, chunk.model, chunk.created, chunk.object) for chunk in chunks} == {
        (theirs.id, theirs.model, 1700000000, "chat.completion.chunk")
    }
    said = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert said[0].delta.to_dict() == {"role": "assistant", "content": ""}
    assert (said[-1].delta.to_dict(), said[-1].finish_reason) == ({}, "tool_calls")
    assert {choice.finish_reason for choice in said[:-1]} == {None}
    text = "".join(choice.delta.content or "" for choice in said)
    assert text == "".join(block.text for block in theirs.content if block.type == "text")
    thoughts, reasoning = [], ""
    calls: dict[int, list[Any]] = {}
    for choice in said:
        extra = choice.delta.model_extra or {}
        thoughts += extra.get("thinking_blocks", [])
        reasoning += extra.get("reasoning_content", "")
        for call in choice.delta.tool_calls or ():
            assert call.function is not None
            known = calls.setdefault(call.index, [call.id, call.function.name, ""])
            known[2] += call.function.arguments or ""
    kept = [block for block in theirs.content if block.type in ("thinking", "redacted_thinking")]
    assert thoughts == [block.to_dict() for block in kept]
    assert reasoning == "".join(block.thinking for block in theirs.content if block.type == "thinking")
    assert {number: (one, name, json.loads(text)) for number, (one, name, text) in calls.items()} == dict(
        enumerate((block.id, block.name, block.input) for block in theirs.content if block.type == "tool_use")
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.to_dict() == vendor.CHAT_USAGE


def test_counts_of_the_end_replace_those_of_the_beginning_row_3() -> None:
    used = counts(start(input_tokens=15), delta(usage={"input_tokens": 15, "output_tokens": 9}), STOP)
    assert (used["prompt_tokens"], used["completion_tokens"]) == (15, 9)


def test_counts_of_the_beginning_stay_where_the_end_has_none_rows_4_and_6() -> None:
    first = start(input_tokens=15, cache_read_input_tokens=4, cache_creation_input_tokens=2)
    used = counts(first, delta(usage={"output_tokens": 9, "cache_read_input_tokens": None}), STOP)
    assert (used["prompt_tokens"], used["completion_tokens"]) == (21, 9)
    assert used["prompt_tokens_details"] == {"cached_tokens": 4, "cache_write_tokens": 2}


def test_counts_that_come_only_at_the_end_row_5() -> None:
    used = counts(start(input_tokens=0), delta(usage={"input_tokens": 33, "output_tokens": 9}), STOP)
    assert (used["prompt_tokens"], used["completion_tokens"]) == (33, 9)


def test_no_counts_are_no_usage_chunk() -> None:
    first = {"type": "message_start", "message": vendor.whole([], None, usage={})}
    sent, _ = follow(first, delta(usage={}), STOP)
    assert b"usage" not in sent
    assert sent.endswith(DONE)


def test_arguments_begin_empty_row_8() -> None:
    json_of_it = [added(0, "input_json_delta", partial_json=piece) for piece in ("", '{"a"', ":1}")]
    assert arguments(opened(0, CALL), *json_of_it, closed(0)) == {0: '{"a":1}'}


def test_a_call_without_arguments_has_an_empty_object_row_9() -> None:
    assert arguments(opened(0, CALL), closed(0)) == {0: "{}"}
    assert arguments(opened(0, CALL), added(0, "input_json_delta", partial_json=""), closed(0)) == {0: "{}"}
    assert arguments(opened(0, CALL | {"input": {"a": 1}}), closed(0)) == {0: '{"a":1}'}


def test_calls_are_numbered_among_themselves_row_10() -> None:
    told = [opened(0, TEXT), closed(0), opened(1, CALL), closed(1), opened(2, CALL | {"id": "toolu_2"}), closed(2)]
    begun = [call for said in deltas(*told) for call in said.get("tool_calls", ()) if "id" in call]
    assert [(call["index"], call["id"]) for call in begun] == [(0, "toolu_1"), (1, "toolu_2")]


def test_blocks_that_come_at_once_are_kept_apart_row_11() -> None:
    told = [opened(3, CALL), opened(5, CALL | {"id": "toolu_2"})]
    told += [added(5, "input_json_delta", partial_json='{"b":2}'), added(3, "input_json_delta", partial_json='{"a":1}')]
    assert arguments(*told, closed(5), closed(3)) == {0: '{"a":1}', 1: '{"b":2}'}


def test_arguments_that_are_cut_off_pass_as_they_are_row_12() -> None:
    told = [start(), opened(0, CALL), added(0, "input_json_delta", partial_json='{"a"'), closed(0)]
    chunks = list(sdk.chunks(follow(*told, delta("max_tokens"), STOP)[0]))
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert b'"{\\"a\\""' in follow(*told, delta("max_tokens"), STOP)[0]


def test_an_error_ends_it_without_done_row_44() -> None:
    told = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"}
    sent, found = follow(start(), opened(0, TEXT), added(0, "text_delta", text="Hel"), told, delta(), STOP)
    assert (found.failed, found.done, found.broken) == (True, False, False)
    assert b"[DONE]" not in sent and b"finish_reason" in sent and b'"finish_reason":"' not in sent
    with pytest.raises(openai.APIError, match="Overloaded"):
        list(sdk.chunks(sent))


@pytest.mark.parametrize("told", [[], [start()], [start(), opened(0, TEXT), added(0, "text_delta", text="Hel")]])
def test_an_end_before_the_reason_to_stop_is_none_row_45(told: list[dict[str, Any]]) -> None:
    sent, found = follow(*told)
    assert (found.done, found.broken) == (False, True)
    assert b"[DONE]" not in sent


def test_a_clean_end_after_the_reason_to_stop_is_whole_row_45() -> None:
    sent, found = follow(start(), delta())
    assert found.done
    assert sent.endswith(DONE)


def test_a_refusal_row_47() -> None:
    for details, refusal in (({"explanation": "No."}, [{"refusal": "No."}]), (None, [])):
        sent, _ = follow(start(), delta("refusal", stop_details=details), STOP)
        choices = [chunk.choices[0] for chunk in sdk.chunks(sent) if chunk.choices]
        assert [choice.delta.to_dict() for choice in choices[1:-1]] == refusal
        assert choices[-1].finish_reason == "content_filter"


def test_the_first_chunk_says_whose_answer_it_is_row_48() -> None:
    sent, _ = follow(opened(0, TEXT), added(0, "text_delta", text="Hi"), delta(), STOP)
    first = next(sdk.chunks(sent))
    assert first.choices[0].delta.role == "assistant"


def test_text_in_the_beginning_of_a_block_is_sent_row_49() -> None:
    assert deltas(opened(0, TEXT | {"text": "Hel"}), added(0, "text_delta", text="lo"), closed(0)) == [
        {"content": "Hel"},
        {"content": "lo"},
    ]


def test_what_a_client_sees_nothing_of_is_a_comment_row_50() -> None:
    found = TranslatedStream(created=1)
    found.feed(vendor.wire([start(), opened(0, {"type": "thinking", "thinking": "", "signature": ""})]))
    hidden: list[dict[str, Any]] = [
        {"type": "ping"},
        {"type": "never_heard_of"},
        added(0, "thinking_delta", thinking=""),
        added(0, "signature_delta", signature="c2ln"),
        added(0, "citations_delta", citation={}),
        added(7, "input_json_delta", partial_json="{}"),
    ]
    for event in hidden:
        assert found.feed(vendor.wire([event])) == b": ping\n\n"


def test_one_reason_to_stop_whatever_comes_row_51() -> None:
    told = [start(), delta(usage={"output_tokens": 3}), delta(None, {"output_tokens": 9}), STOP]
    chunks = list(sdk.chunks(follow(*told)[0]))
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None, "stop"]
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 9


def test_a_whole_event_leaves_at_once_and_only_the_end_is_held() -> None:
    found = TranslatedStream(created=1)
    found.feed(vendor.wire([start(), opened(0, TEXT)]))
    assert b'"Hi"' in found.feed(vendor.wire([added(0, "text_delta", text="Hi")]))
    assert found.feed(vendor.wire([delta()])) == b""
    assert found.feed(vendor.wire([STOP])).endswith(DONE)
    assert found.feed(vendor.wire([added(0, "text_delta", text="more")])) == b""


@pytest.mark.parametrize(
    "told",
    [
        b"data: no json\n\n",
        b"data: []\n\n",
        b'data: {"type":"content_block_delta","index":0}\n\n',
        b'data: {"type":"content_block_delta","delta":{}}\n\n',
        b'data: {"type":"message_start","message":null}\n\n',
    ],
)
def test_what_is_no_event_of_the_api_breaks_it_after_what_came(told: bytes) -> None:
    found = TranslatedStream(created=1)
    sent = found.feed(vendor.wire([start(), opened(0, TEXT), added(0, "text_delta", text="Hel")]) + told)
    assert b'"Hel"' in sent
    assert found.broken
    assert found.finish() == b""


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_THINKING", 10)
    thinking = [opened(0, {"type": "thinking", "thinking": "", "signature": ""})]
    within = [*thinking, *(added(0, "thinking_delta", thinking="12345") for _ in range(2))]
    assert not follow(start(), *within, delta(), STOP)[1].broken
    assert follow(start(), *within, added(0, "thinking_delta", thinking="1"))[1].broken
    monkeypatch.setattr(stream, "MOST_BLOCKS", 3)
    assert not follow(start(), *(opened(index, TEXT) for index in range(3)), delta(), STOP)[1].broken
    assert follow(start(), *(opened(index, TEXT) for index in range(4)), delta(), STOP)[1].broken
