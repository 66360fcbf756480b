"""What becomes of each field of a chat completion under the Messages API."""

import json
from typing import Any

import pytest

from proxy.dialects.anthropic import request
from proxy.dialects.chat import Invalid
from tests.unit.proxy.dialects.anthropic.sdk import MAX_TOKENS, attempt, translated

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
HELLO = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
PLAIN = {"model": "claude", "max_tokens": MAX_TOKENS, "messages": [HELLO]}


def test_the_judge_sees_what_the_vendors_types_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "_HINTS", frozenset())
    monkeypatch.setitem(request._READERS, "seed", request._extension)
    with pytest.raises(AssertionError):
        translated(seed=7)


def test_a_plain_request() -> None:
    assert translated() == PLAIN


@pytest.mark.parametrize(
    "members",
    [
        {"n": 1},
        {"n": None, "temperature": None, "stop": None, "tools": None, "functions": None, "audio": None},
        {"logprobs": False, "top_logprobs": 0, "logit_bias": {}, "frequency_penalty": 0, "presence_penalty": 0.0},
        {"temperature": 1, "top_p": 1.0},
        {"stop": []},
        {"seed": 7, "prompt_cache_key": "k", "prompt_cache_retention": "24h", "prediction": {"type": "content"}},
        {"store": False, "metadata": {"a": "b"}, "modalities": ["text"], "verbosity": "medium"},
        {"response_format": {"type": "text"}},
        {"parallel_tool_calls": False, "tool_choice": "auto", "tools": []},
        {"stream": False, "stream_options": None},
        {"user": ""},
    ],
)
def test_what_changes_nothing_is_dropped(members: dict[str, Any]) -> None:
    assert translated(**members) == PLAIN


@pytest.mark.parametrize(
    ("members", "becomes"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"max_tokens": 5.0}, {"max_tokens": 5}),
        ({"stop": "END"}, {"stop_sequences": ["END"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"temperature": 0.2, "top_p": 1}, {"temperature": 0.2}),
        ({"temperature": 0, "top_p": 0.5, "top_k": 3}, {"temperature": 0, "top_p": 0.5, "top_k": 3}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
        ({"service_tier": "default"}, {"service_tier": "standard_only"}),
        ({"service_tier": "auto"}, {"service_tier": "auto"}),
        ({"reasoning_effort": "minimal"}, {"output_config": {"effort": "low"}}),
        ({"reasoning_effort": "xhigh"}, {"output_config": {"effort": "xhigh"}}),
        ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        ({"thinking": {"type": "adaptive"}}, {"thinking": {"type": "adaptive"}}),
        ({"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral"}}),
    ],
)
def test_what_has_a_counterpart(members: dict[str, Any], becomes: dict[str, Any]) -> None:
    assert translated(**members) == PLAIN | becomes


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"presence_penalty": 0.1}, "presence_penalty"),
        ({"temperature": 1.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"stop": "  "}, "stop"),
        ({"stop": [1]}, "stop"),
        ({"store": True}, "store"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"reasoning_effort": "max"}, "reasoning_effort"),
        ({"reasoning_effort": "none", "thinking": {"type": "adaptive"}}, "reasoning_effort"),
        ({"verbosity": "low"}, "verbosity"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "alloy"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"user": 7}, "user"),
        ({"never_heard_of": 1}, "never_heard_of"),
        ({"messages": "Hi"}, "messages"),
        ({"messages": None}, "messages"),
        ({"messages": [{"role": "system", "content": "Be brief."}]}, "messages"),
    ],
)
def test_what_has_none_is_refused_by_its_name(members: dict[str, Any], param: str) -> None:
    refused = attempt(**members)
    assert isinstance(refused, Invalid)
    assert refused.param == param
    assert param in refused.message


def test_a_user_is_a_hash_row_33() -> None:
    one = translated(user="ada@example.com")["metadata"]
    assert list(one) == ["user_id"]
    assert "@" not in one["user_id"] and len(one["user_id"]) == 64
    assert translated(user="ada@example.com")["metadata"] == one
    assert translated(safety_identifier="ada@example.com", user="other")["metadata"] == one
    assert translated(user="bob@example.com")["metadata"] != one


def test_effort_and_a_schema_meet_in_one_member() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "properties": {}}}}
    found = translated(reasoning_effort="high", response_format=wanted)["output_config"]
    assert found["effort"] == "high"
    assert found["format"]["type"] == "json_schema"


def test_effort_never_becomes_a_budget_row_43() -> None:
    assert "thinking" not in translated(reasoning_effort="high")


def test_a_forced_tool_beside_thinking_is_the_providers_to_refuse_row_20() -> None:
    found = translated(tools=[TOOL], tool_choice="required", thinking={"type": "enabled", "budget_tokens": 1024})
    assert found["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert found["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[{"role":"user","content":1e999}]}',
    ],
    ids=["too deep", "half of a surrogate pair", "a number out of range"],
)
def test_a_body_that_cannot_be_read_is_refused(body: bytes) -> None:
    assert isinstance(request.translate(body, default_max_tokens=1), Invalid)


def test_the_same_request_has_the_same_bytes_so_that_prompts_are_cached() -> None:
    body = json.dumps({"model": "m", "messages": [USER], "tools": [TOOL], "user": "u", "stop": "x"}).encode()
    assert len({request.translate(body, default_max_tokens=1) for _ in range(2)}) == 1
