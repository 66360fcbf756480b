"""What becomes of messages: turns, calls of tools and their results, what the API would refuse."""

from typing import Any

import pytest

from proxy.dialects.anthropic import messages
from proxy.dialects.chat import Invalid
from tests.unit.proxy.dialects.anthropic.sdk import attempt, translated

ZERO_WIDTH = "\u200b"


def user(content: Any = "Hi") -> dict[str, Any]:
    return {"role": "user", "content": content}


def call(identifier: str = "call_1", name: str = "look", arguments: str | None = "{}") -> dict[str, Any]:
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def calling(*calls: dict[str, Any], content: Any = None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def result(identifier: str = "call_1", content: Any = "seen") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": identifier, "content": content}


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def turns(*told: dict[str, Any]) -> list[Any]:
    found: list[Any] = translated(messages=list(told))["messages"]
    return found


def refused(*told: dict[str, Any]) -> str | None:
    found = attempt(messages=list(told))
    assert isinstance(found, Invalid)
    return found.param


def test_leading_instructions_are_the_system_a_block_a_part_row_29() -> None:
    marked = {"type": "ephemeral"}
    told = [
        {"role": "system", "content": [text("One."), text("Two.", cache_control=marked)]},
        {"role": "developer", "content": "Three."},
        user(),
    ]
    assert translated(messages=told)["system"] == [text("One."), text("Two.", cache_control=marked), text("Three.")]


def test_a_later_instruction_stays_at_its_place_row_28() -> None:
    told = [user("One"), {"role": "system", "content": "Be brief."}, {"role": "assistant", "content": "1"}, user("Two")]
    assert [turn["role"] for turn in turns(*told)] == ["user", "assistant", "user"]
    assert turns(*told)[0]["content"] == [text("One"), text("<system>\nBe brief.\n</system>")]
    assert "system" not in translated(messages=told)


@pytest.mark.parametrize("blank", ["", "  ", "\n", ZERO_WIDTH, f" {ZERO_WIDTH}\u00a0"])
def test_blanks_are_left_out_row_26(blank: str) -> None:
    assert "system" not in translated(messages=[{"role": "system", "content": blank}, user()])
    assert turns(user([text(blank), text("Hi")])) == [user([text("Hi")])]
    assert refused(user(), user(blank)) == "messages[1].content"
    assert refused(user([text(blank)])) == "messages[0].content"


def test_empty_answers_and_results_are_taken_row_26() -> None:
    found = turns(user(), calling(call(), content=""), result(content=""))
    assert found[1]["content"] == [{"type": "tool_use", "id": "call_1", "name": "look", "input": {}}]
    assert found[2]["content"] == [{"type": "tool_result", "tool_use_id": "call_1"}]
    assert turns(user(), {"role": "assistant", "content": None})[1] == {"role": "assistant", "content": []}


def test_blank_content_beside_calls_is_no_block_row_25() -> None:
    contents: list[Any] = ["", " ", None, []]
    for content in contents:
        (block,) = turns(user(), calling(call(), content=content), result())[1]["content"]
        assert block["type"] == "tool_use"


def test_blanks_at_the_end_of_what_the_model_is_to_go_on_with_are_stripped_row_27() -> None:
    assert turns(user(), {"role": "assistant", "content": "Once \n"})[-1]["content"] == [text("Once")]
    told = turns(user(), {"role": "assistant", "content": "Once \n"}, user("Go on"))
    assert told[1]["content"] == [text("Once \n")]


def test_a_last_answer_is_neither_dropped_nor_followed_by_a_turn_of_ours_row_36() -> None:
    assert turns(user(), {"role": "assistant", "content": "Once"})[-1]["role"] == "assistant"


def test_results_in_a_row_are_one_turn_and_first_in_it_row_14() -> None:
    found = turns(user(), calling(call("a"), call("b")), result("a"), user("And?"), result("b"))
    assert [turn["role"] for turn in found] == ["user", "assistant", "user"]
    assert [block["type"] for block in found[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert [block["tool_use_id"] for block in found[2]["content"][:2]] == ["a", "b"]


def test_an_instruction_between_call_and_result_comes_after_the_result() -> None:
    found = turns(user(), calling(call()), {"role": "system", "content": "Hm."}, result())
    assert [block["type"] for block in found[2]["content"]] == ["tool_result", "text"]


def test_ids_the_api_would_refuse_are_mapped_and_stay_apart_row_15() -> None:
    given = ["call.1:x", "call_1_x", "call.1.x", "", "tollgate_Y2FsbC4xOng", "é"]
    mapped = [messages.tool_id(one) for one in given]
    assert len(set(mapped)) == len(given)
    assert mapped[1] == "call_1_x"
    assert all(set(one) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") for one in mapped)
    found = turns(user(), calling(call("call.1:x")), result("call.1:x"))
    assert found[1]["content"][0]["id"] == found[2]["content"][0]["tool_use_id"] == mapped[0]


def test_an_id_is_of_one_call_row_16() -> None:
    assert refused(user(), calling(call("a"), call("a"))) == "messages[1].tool_calls[1].id"
    again = [user(), calling(call("a")), result("a"), calling(call("a")), result("a")]
    assert refused(*again) == "messages[3].tool_calls[0].id"


def test_a_result_has_its_call_in_the_answer_before_it_row_17() -> None:
    assert refused(user(), result()) == "messages[1].tool_call_id"
    assert refused(user(), calling(call("a")), result("b")) == "messages[2].tool_call_id"
    assert refused(user(), calling(call("a")), result("a"), result("a")) == "messages[3].tool_call_id"
    late = [user(), calling(call("a")), user("no"), calling(call("b")), result("a")]
    assert refused(*late) == "messages[4].tool_call_id"


@pytest.mark.parametrize("arguments", ["", "  ", None])
def test_no_arguments_are_an_empty_object_row_13(arguments: str | None) -> None:
    assert turns(user(), calling(call(arguments=arguments)), result())[1]["content"][0]["input"] == {}


@pytest.mark.parametrize("arguments", ["[]", "null", "7", "{", "not json", '{"a": 1e999}'])
def test_arguments_are_an_object(arguments: str) -> None:
    assert refused(user(), calling(call(arguments=arguments))) == "messages[1].tool_calls[0].function.arguments"


def test_arguments_are_read() -> None:
    found = turns(user(), calling(call(arguments='{"b": [1, 2.5], "a": null}')), result())
    assert list(found[1]["content"][0]["input"].items()) == [("b", [1, 2.5]), ("a", None)]


def test_thinking_comes_first_and_unchanged_row_34() -> None:
    thoughts = [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZGF0YQ=="},
    ]
    told = calling(call(), content="I look.") | {"thinking_blocks": thoughts, "reasoning_content": "Hm."}
    found = turns(user(), told, result())[1]["content"]
    assert found[:2] == thoughts
    assert [block["type"] for block in found[2:]] == ["text", "tool_use"]


def test_an_answer_as_an_sdk_gives_it_back() -> None:
    given: dict[str, Any] = {"role": "assistant", "content": "Yes.", "refusal": None, "annotations": [], "audio": None}
    assert turns(user(), given | {"function_call": None, "tool_calls": None}, user())[1]["content"] == [text("Yes.")]


def test_a_refusal_is_what_the_model_said() -> None:
    parts = [{"type": "refusal", "refusal": "No."}]
    for told in ({"content": None, "refusal": "No."}, {"content": parts}):
        assert turns(user(), {"role": "assistant"} | told, user())[1]["content"] == [text("No.")]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Hi", "messages[0]"),
        ({"content": "Hi"}, "messages[0].role"),
        ({"role": "function", "name": "f", "content": "Hi"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        ({"role": "user", "content": "Hi", "name": "Ada"}, "messages[0].name"),
        ({"role": "user", "content": [7]}, "messages[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [text("Hi", color="red")]}, "messages[0].content[0].color"),
        ({"role": "system", "content": [{"type": "image_url"}]}, "messages[0].content[0].type"),
        ({"role": "assistant", "content": [{"type": "image_url"}]}, "messages[0].content[0].type"),
        ({"role": "assistant", "audio": {"id": "a"}}, "messages[0].audio"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "assistant", "tool_calls": [{"id": "a", "type": "custom"}]}, "messages[0].tool_calls[0].type"),
        ({"role": "assistant", "thinking_blocks": [{"type": "text"}]}, "messages[0].thinking_blocks[0].type"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_place(message: Any, param: str) -> None:
    assert refused(message) == param
