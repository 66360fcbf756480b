"""The Responses API: bounds, names, counts and ends of its answers (contract 3.2, 3.3)."""

import json
from typing import Any

import pytest

from proxy.dialects.chat import ChatRequest, Invalid
from proxy.dialects.routes import responses
from proxy.dialects.routes.responses import ResponseStream
from proxy.limits.estimate import TokenCounts
from tests.unit.proxy.dialects.routes.responses_events import created, delta, event, last, response

COUNTED = TokenCounts(input_tokens=9, output_tokens=6, cached_input_tokens=4)


def read(**members: Any) -> ChatRequest | Invalid:
    return responses.parse(json.dumps({"model": "lab/model", "input": "Hi"} | members).encode())


def follow(*events: bytes) -> tuple[bytes, ResponseStream]:
    stream = ResponseStream("lab/model")
    sent = stream.feed(b"".join(events))
    stream.finish()
    return sent, stream


def test_the_bound_of_an_answer_is_max_output_tokens_alone() -> None:
    found = read(max_output_tokens=40, max_tokens=90, n=3)
    assert isinstance(found, ChatRequest)
    assert (found.max_tokens, found.choices) == (40, 1)


@pytest.mark.parametrize("value", [True, 1, "true", {}, [False]])
def test_what_would_answer_later_is_refused(value: object) -> None:
    found = read(background=value)
    assert isinstance(found, Invalid)
    assert found.param == "background"


def test_a_background_that_comes_twice_is_refused() -> None:
    for body in (b'{"model":"m","background":true,"background":false}', b'{"model":"m","b\\u0061ckground":true}'):
        found = responses.parse(body)
        assert isinstance(found, Invalid), body
        assert found.param == "background"


@pytest.mark.parametrize("value", [False, None])
def test_what_answers_now_is_not(value: object) -> None:
    assert isinstance(read(background=value), ChatRequest)


def test_stream_options_go_on_as_they_came() -> None:
    body = b'{"stream_options" : {"include_obfuscation":false}, "stream":true, "model":"lab/model", "input":"Hi"}'
    found = responses.parse(body)
    assert isinstance(found, ChatRequest)
    assert found.stream
    assert responses.upstream_body(found, "theirs") == body.replace(b"lab/model", b"theirs")


def test_half_a_surrogate_pair_is_the_upstreams_business() -> None:
    found = responses.parse(b'{"model":"m","input":"\\ud800","max_output_tokens":4}')
    assert isinstance(found, ChatRequest)
    assert found.max_tokens == 4


def test_the_last_event_is_held_and_the_name_is_ours() -> None:
    sent, stream = follow(created(), delta("Hello"), last())
    assert (stream.is_whole, stream.is_counted, stream.failed) == (True, True, False)
    assert stream.tokens == COUNTED
    assert b"their-model" not in sent + stream.held
    assert sent + stream.held == (created() + delta("Hello") + last()).replace(b"their-model", b"lab/model")
    assert stream.held.startswith(b"event: response.completed")


def test_only_the_models_own_name_is_changed() -> None:
    kept: dict[str, Any] = {"metadata": {"model": "their-model"}, "tools": [{"model": "their-model"}]}
    _, stream = follow(last(**kept))
    told = json.loads(stream.held.split(b"data: ")[1])["response"]
    assert told["model"] == "lab/model"
    assert {name: told[name] for name in kept} == kept


@pytest.mark.parametrize(("status", "whole"), [("completed", True), ("incomplete", True), ("failed", False)])
def test_each_last_event_has_the_counts(status: str, whole: bool) -> None:
    _, stream = follow(created(), last(status))
    assert (stream.is_whole, stream.done, stream.failed) == (whole, True, not whole)
    assert stream.tokens == COUNTED
    assert stream.is_counted


def test_a_failure_may_have_no_counts() -> None:
    _, stream = follow(created(), delta("x" * 40), last("failed", usage=None, error={"code": "server_error"}))
    assert (stream.tokens, stream.content_bytes, stream.is_counted) == (None, 40, False)


def test_a_stream_without_its_last_event_is_not_whole() -> None:
    for events in ([], [created()], [created(), delta("Hello")], [created(), b"data: [DONE]\n\n"]):
        _, stream = follow(*events)
        assert not stream.is_whole


def test_an_error_of_the_upstream_passes_as_it_came() -> None:
    error = event("error", 3, code="server_error", message="No.", param=None)
    sent, stream = follow(created(), error)
    assert sent.endswith(error)
    assert stream.failed
    assert not stream.is_whole


def test_an_error_of_ours_has_this_apis_shape_and_the_next_number() -> None:
    _, stream = follow(created(), delta("Hello", 4))
    told = stream.error_event(502, b'{"error":{"message":"It broke off.","type":"api_error","param":null,"code":"c"}}')
    name, data = told.split(b"\n")[:2]
    assert name == b"event: error"
    assert json.loads(data[6:]) == {
        "type": "error",
        "code": "c",
        "message": "It broke off.",
        "param": None,
        "sequence_number": 5,
    }
    assert told.endswith(b"\n\n")


def test_what_the_model_wrote_is_counted_once() -> None:
    deltas = [
        delta("Hello"),
        event("response.reasoning_summary_text.delta", delta="why"),
        event("response.output_item.added", item={"type": "function_call", "name": "look", "arguments": ""}),
        event("response.function_call_arguments.delta", delta="{}"),
        event("response.output_text.done", text="Hello"),
        event("response.audio.delta", delta="AAAA"),
    ]
    assert follow(*deltas)[1].content_bytes == len("Hello" + "why" + "look" + "{}")


def test_a_last_event_of_more_parts_than_are_read_has_its_counts() -> None:
    output = [{"type": "message", "content": [{"type": "output_text", "logprobs": [{"bytes": [1] * 10}] * 20_000}]}]
    _, stream = follow(last(output=output))
    assert (stream.is_whole, stream.tokens) == (True, COUNTED)
    assert b'"model": "lab/model"' in stream.held


def test_a_last_event_without_its_blank_line_is_completed() -> None:
    _, stream = follow(created(), last().rstrip(b"\n"))
    assert stream.is_whole
    assert stream.held.endswith(b"}\n\n")


def test_a_whole_answer() -> None:
    body = json.dumps(response()).encode()
    found = responses.plain(body, "lab/model")
    assert found.body == body.replace(b"their-model", b"lab/model")
    assert (found.tokens, found.failed) == (COUNTED, False)
    told = responses.plain(json.dumps(response(usage=None)).encode(), "lab/model")
    assert (told.tokens, told.content_bytes) == (None, len("Hello"))
    failed = json.dumps(response("failed", error={"code": "server_error", "message": "No."})).encode()
    assert responses.plain(failed, "lab/model").failed


@pytest.mark.parametrize(
    ("members", "tokens"),
    [
        ({"input": "Hi"}, 1 + 4),
        ({"input": [{"role": "user", "content": "Hi"}]}, 1 + 4),
        ({"input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}], "instructions": "x" * 8}, 7),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x" * 40}]}, 14),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x.org/a"}]}]}, 1104),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_data": "AAAA"}]}]}, 1504),
        ({"input": "", "text": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, 9),
    ],
)
def test_what_a_prompt_is_billed_as_where_nobody_counted(members: dict[str, Any], tokens: int) -> None:
    assert responses.prompt_tokens(json.dumps(members).encode(), otherwise=99) == tokens
