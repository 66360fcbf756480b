"""Whole answers and errors of the Messages API as a client of chat completions gets them."""

import json
from typing import Any

import openai
import pytest

from proxy.dialects.anthropic import answer
from tests.unit.proxy.dialects.anthropic import sdk, vendor


def plain(blocks: list[dict[str, Any]], stop: str | None = "end_turn", **more: Any) -> Any:
    return sdk.completion(answer.plain(json.dumps(vendor.whole(blocks, stop, **more)).encode(), created=1700000000))


def test_each_field_as_both_sdks_read_it() -> None:
    body = json.dumps(vendor.whole(vendor.BLOCKS, "tool_use")).encode()
    theirs, ours = sdk.message(body), sdk.completion(answer.plain(body, created=1700000000))
    (choice,) = ours.choices
    said = choice.message
    assert (ours.id, ours.model, ours.object, ours.created) == (
        theirs.id,
        theirs.model,
        "chat.completion",
        1700000000,
    )
    assert (choice.index, choice.finish_reason, said.role, said.refusal) == (0, "tool_calls", theirs.role, None)
    assert said.content == "".join(block.text for block in theirs.content if block.type == "text")
    assert said.model_extra is not None
    thoughts = [block for block in theirs.content if block.type in ("thinking", "redacted_thinking")]
    assert said.model_extra["thinking_blocks"] == [block.to_dict() for block in thoughts]
    assert said.model_extra["reasoning_content"] == "".join(
        block.thinking for block in theirs.content if block.type == "thinking"
    )
    calls = [block for block in theirs.content if block.type == "tool_use"]
    assert said.tool_calls is not None
    assert [(call.id, call.type) for call in said.tool_calls] == [(block.id, "function") for block in calls]
    named = [call.function for call in said.tool_calls if call.type == "function"]
    assert [(one.name, json.loads(one.arguments)) for one in named] == [(block.name, block.input) for block in calls]
    assert ours.usage is not None
    assert ours.usage.to_dict() == vendor.CHAT_USAGE
    used = theirs.usage
    assert used.cache_creation_input_tokens is not None and used.cache_read_input_tokens is not None
    assert ours.usage.prompt_tokens == (
        used.input_tokens + used.cache_creation_input_tokens + used.cache_read_input_tokens
    )
    assert ours.usage.completion_tokens == used.output_tokens


@pytest.mark.parametrize(
    ("stop", "becomes"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("tool_use", "tool_calls"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("compaction", "length"),
        ("pause_turn", "length"),
        ("refusal", "content_filter"),
        ("never heard of", "stop"),
        (None, "stop"),
    ],
)
def test_reasons_to_stop_row_46(stop: str | None, becomes: str) -> None:
    assert plain([], stop).choices[0].finish_reason == becomes


@pytest.mark.parametrize(
    ("details", "refusal"), [({"explanation": "It is unsafe."}, "It is unsafe."), (None, None), ({}, None)]
)
def test_a_refusal_row_47(details: Any, refusal: str | None) -> None:
    (choice,) = plain([], "refusal", stop_details=details).choices
    assert (choice.finish_reason, choice.message.refusal, choice.message.content) == ("content_filter", refusal, None)


def test_calls_alone_have_no_content() -> None:
    said = plain(vendor.BLOCKS[4:], "tool_use").choices[0].message
    assert said.content is None
    assert [call.function.arguments for call in said.tool_calls] == ['{"a":[1,null],"b":"é"}', "{}"]


def test_what_is_not_known_is_passed_over() -> None:
    blocks: list[Any] = [{"type": "server_tool_use", "id": "x"}, "?", vendor.BLOCKS[2], {"type": "text", "text": None}]
    said = plain(blocks)
    assert said.choices[0].message.content == "Hello, "


def test_omitted_thinking_is_kept_for_the_next_turn_row_35() -> None:
    thought = {"type": "thinking", "thinking": "", "signature": "c2ln"}
    said = plain([thought, vendor.BLOCKS[2]]).choices[0].message
    assert said.model_extra == {"thinking_blocks": [thought]}


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"input_tokens": 5, "output_tokens": 2}, (5, 2, 7, 0, 0)),
        ({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": None}, (5, 2, 7, 0, 0)),
        (vendor.USAGE, (60, 7, 67, 30, 20)),
        (
            {
                "input_tokens": 5,
                "output_tokens": 2,
                "iterations": [
                    {"type": "message", "input_tokens": 5, "output_tokens": 2},
                    {"type": "compaction", "input_tokens": 100, "output_tokens": 40, "cache_read_input_tokens": 3},
                    {"type": "advisor_message", "input_tokens": 1000, "output_tokens": 400},
                ],
            },
            (1108, 442, 1550, 3, 0),
        ),
    ],
)
def test_counts_rows_1_and_2(usage: dict[str, Any], counts: tuple[int, ...]) -> None:
    used = plain([], usage=usage).usage
    details = used.prompt_tokens_details.to_dict()
    assert counts == (
        used.prompt_tokens,
        used.completion_tokens,
        used.total_tokens,
        details["cached_tokens"],
        details["cache_write_tokens"],
    )


@pytest.mark.parametrize("usage", [None, {}, {"output_tokens": 3}, "none"])
def test_no_counts_are_no_usage_and_never_zeros(usage: Any) -> None:
    assert plain([], usage=usage).usage is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"type":"message"}', b'{"content":"text"}'])
def test_what_is_no_answer_of_the_api(body: bytes) -> None:
    with pytest.raises(answer.UnreadableAnswerError):
        answer.plain(body, created=1)


ERRORS = [
    (400, "invalid_request_error", (400, "invalid_request_error", None, openai.BadRequestError)),
    (413, "request_too_large", (413, "invalid_request_error", None, openai.APIStatusError)),
    (401, "authentication_error", (502, "server_error", "upstream_credential", openai.InternalServerError)),
    (402, "billing_error", (502, "server_error", "upstream_credential", openai.InternalServerError)),
    (403, "permission_error", (502, "server_error", "upstream_credential", openai.InternalServerError)),
    (404, "not_found_error", (404, "invalid_request_error", None, openai.NotFoundError)),
    (409, "conflict_error", (409, "invalid_request_error", None, openai.ConflictError)),
    (429, "rate_limit_error", (429, "rate_limit_error", "rate_limit_exceeded", openai.RateLimitError)),
    (500, "api_error", (500, "server_error", None, openai.InternalServerError)),
    (504, "timeout_error", (504, "server_error", None, openai.InternalServerError)),
    (529, "overloaded_error", (503, "server_error", "overloaded", openai.InternalServerError)),
]


@pytest.mark.parametrize(("status", "kind", "becomes"), ERRORS)
def test_errors(status: int, kind: str, becomes: tuple[int, str, str | None, type[openai.APIStatusError]]) -> None:
    new_status, new_kind, code, raised = becomes
    told = {"type": "error", "error": {"type": kind, "message": "It went wrong."}, "request_id": "req_1"}
    found = answer.error(status, json.dumps(told).encode())
    assert found.status == new_status
    with sdk.openai_client(found.body, "application/json", found.status) as client, pytest.raises(raised) as error:
        client.chat.completions.create(model="x", messages=[])
    assert (error.value.type, error.value.code) == (new_kind, code)
    hidden = new_status == 502
    assert ("It went wrong." in error.value.message) is not hidden
    assert answer.streamed_error(told) == found


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"[]", b'{"error":"no"}', b'{"error":{"message":7}}'])
def test_an_error_that_cannot_be_read_keeps_its_status(body: bytes) -> None:
    found = answer.error(503, body)
    assert found.status == 503
    assert json.loads(found.body)["error"]["message"] == "The model's server answered with status 503."


def test_an_error_in_a_stream_without_a_type_is_the_servers() -> None:
    for told in ({}, {"error": None}, {"error": {"type": ["x"]}}, {"error": {"type": "new_error"}}):
        assert json.loads(answer.streamed_error(told).body)["error"]["type"] == "server_error"
