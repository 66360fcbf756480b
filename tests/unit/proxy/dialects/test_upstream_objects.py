"""No customer names what is another's at the upstream."""

import json
from typing import Any

import pytest

from proxy.dialects import upstream_objects

PART = {"type": "input_file", "file_id": "file-1"}


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"container": "container_1"}, "container"),
        ({"fallbacks": [{"model": "m"}]}, "fallbacks"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt.id"),
        ({"input": [{"role": "user", "content": [PART]}]}, "file_id"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file_id"),
        ({"messages": [{"role": "user", "content": [{"source": {"type": "file", "file_id": "f"}}]}]}, "file_id"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "vector_store_ids"),
        ({"tools": [{"type": "code_interpreter", "container": {"file_ids": ["f"]}}]}, "container"),
        ({"tool_resources": {"code_interpreter": {"file_ids": ["f"]}}}, "file_ids"),
    ],
)
def test_what_is_refused(asked: dict[str, Any], name: str) -> None:
    assert upstream_objects.named(json.dumps({"model": "m"} | asked).encode()) == name


def test_a_name_that_is_written_by_escapes_is_found() -> None:
    assert upstream_objects.named(rb'{"model":"m","previous\u005fresponse_id":"r"}') == "previous_response_id"
    assert upstream_objects.named(rb'{"model":"m","fil\u0065_id":"r"}') == "file_id"


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ('"Previous_Response_ID":"r"', "previous_response_id"),
        ('"previous_re\u017fponse_id":"r"', "previous_response_id"),
        ('"fallbac\u212as":["m"]', "fallbacks"),
        (r'"fallbac\u212As":["m"]', "fallbacks"),
        (r'"\u0046ile_id":"f"', "file_id"),
        ('"file_id":"f","file_id":null', "file_id"),
        ('"input":[{"File_Id":"f"}],"input":"hello"', "file_id"),
        ('"Input":[{"Type":"item_reference","id":"m"}]', "item_reference"),
        ('"input":[{"type":"message","type":"item_reference","type":"message"}]', "item_reference"),
        ('"input":[{"id":"msg_1"}]', "item_reference"),
        ('"input":{"ID":"msg_1","type":null}', "item_reference"),
        ('"prompt":{"id":"p"},"prompt":"hello"', "prompt.id"),
        ('"Prompt" : {"Id":"p"}', "prompt.id"),
        ('"file_id":1' + "0" * 5000, "file_id"),
    ],
)
def test_a_name_in_another_case_or_given_twice_is_refused(members: str, name: str) -> None:
    """Servers differ in which of two they read, and Go's read any case (encoding/json, Unmarshal)."""
    assert upstream_objects.named(f'{{"model":"m",{members}}}'.encode()) == name


@pytest.mark.parametrize(
    "asked",
    [
        {"input": [{"id": "msg_1", "type": "message", "role": "assistant", "content": []}]},
        {"input": [{"id": "msg_1", "role": "assistant", "content": "mine"}]},
        {"messages": [{"id": "msg_1"}], "input": "x"},
        {"input": [{"type": "function_call", "id": "fc_1", "arguments": "{}"}]},
        {"previous_response_id": None, "conversation": None, "container": None},
        {"prompt": "a file_id in a text"},
        {"prompt": ["a", "b"]},
        {"metadata": {"file_id": "f", "conversation": "c"}},
        {"messages": [{"role": "user", "content": 'say "file_id": "f"'}]},
        {"tools": [{"type": "function", "function": {"parameters": {"properties": {"file_id": {"type": "string"}}}}}]},
        {"tools": [{"name": "f", "input_schema": {"properties": {"container": {"type": "string"}}}}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"file_id": "mine"}}]}]},
        {"response_format": {"json_schema": {"schema": {"properties": {"conversation": {}}}}}},
    ],
)
def test_what_is_the_clients_own_passes(asked: dict[str, Any]) -> None:
    assert upstream_objects.named(json.dumps({"model": "m"} | asked).encode()) is None


def test_one_that_is_too_large_to_be_looked_into_is_refused() -> None:
    crowded = b'{"messages":[' + b"[]," * 150_000 + b'0],"file_id":"f"}'
    assert upstream_objects.named(crowded) == "file_id"


@pytest.mark.parametrize("body", [b"file_id", b'["file_id"]', b'{"file_id":'])
def test_what_is_no_object_is_left_to_others(body: bytes) -> None:
    assert upstream_objects.named(body) is None
