"""What becomes of tools, of the choice among them, and of schemas."""

from typing import Any

import pytest

from proxy.dialects.chat import Invalid
from tests.unit.proxy.dialects.anthropic.sdk import attempt, translated

OBJECT = {"type": "object", "properties": {}}
HISTORY = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
    {"role": "tool", "tool_call_id": "a", "content": "1"},
]


def tool(**function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "look"} | function}


def schema_refused(schema: Any) -> str | None:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    found = attempt(response_format=wanted)
    assert isinstance(found, Invalid)
    assert found.param is not None
    return found.param.removeprefix("response_format.json_schema.schema")


def answer_schema(schema: dict[str, Any], **more: Any) -> Any:
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}
    return translated(response_format=wanted)["output_config"]["format"]["schema"]


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ({}, OBJECT),
        ({"parameters": None}, OBJECT),
        ({"parameters": {}}, {"type": "object"}),
        (
            {"parameters": {"properties": {"a": {"minimum": 1}}}},
            {"type": "object", "properties": {"a": {"minimum": 1}}},
        ),
    ],
)
def test_a_tool_has_a_schema_with_a_type_row_21(given: dict[str, Any], becomes: dict[str, Any]) -> None:
    assert translated(tools=[tool(**given)])["tools"] == [{"name": "look", "input_schema": becomes}]


def test_a_tool() -> None:
    given = tool(description="Looks.", parameters=OBJECT, strict=True) | {"cache_control": {"type": "ephemeral"}}
    assert translated(tools=[given])["tools"] == [
        {
            "name": "look",
            "description": "Looks.",
            "input_schema": OBJECT,
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        }
    ]


def test_no_description_is_none_row_23() -> None:
    assert "description" not in translated(tools=[tool(description=None)])["tools"][0]


@pytest.mark.parametrize("keyword", ["oneOf", "anyOf", "allOf"])
def test_alternatives_at_the_top_are_refused_and_the_tool_named_row_22(keyword: str) -> None:
    found = attempt(tools=[tool(parameters={keyword: [OBJECT]})])
    assert isinstance(found, Invalid)
    assert found.param == "tools[0].function.parameters"
    assert "'look'" in found.message and keyword in found.message


@pytest.mark.parametrize("name", ["", "a b", "a.b", "x" * 129, "é", None])
def test_a_name_the_api_would_refuse_row_24(name: Any) -> None:
    found = attempt(tools=[tool(name=name)])
    assert isinstance(found, Invalid)
    assert found.param == "tools[0].function.name"


def test_tools_of_the_history_are_declared_and_not_called_row_18() -> None:
    found = translated(messages=HISTORY)
    assert found["tools"] == [{"name": "f", "input_schema": OBJECT}]
    assert found["tool_choice"] == {"type": "none"}
    assert translated(messages=HISTORY, tools=[tool()])["tools"] == [{"name": "look", "input_schema": OBJECT}]


@pytest.mark.parametrize(
    ("choice", "parallel", "becomes"),
    [
        (None, None, None),
        ("none", None, {"type": "none"}),
        ("auto", True, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ({"type": "function", "function": {"name": "look"}}, None, {"type": "tool", "name": "look"}),
        ("none", False, {"type": "none"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
    ],
)
def test_the_choice_row_19(choice: Any, parallel: bool | None, becomes: dict[str, Any] | None) -> None:
    found = translated(tools=[tool()], tool_choice=choice, parallel_tool_calls=parallel)
    assert found.get("tool_choice") == becomes


def test_a_schema_is_native_and_closed_rows_40_and_41() -> None:
    inner = {"type": ["object", "null"], "properties": {"b": {"enum": ["x", 1]}}}
    given = {"type": "object", "properties": {"a": {"type": "array", "items": inner, "minItems": 1}}}
    found = answer_schema(given)
    assert found["additionalProperties"] is False
    assert found["properties"]["a"]["items"]["additionalProperties"] is False
    assert found["properties"]["a"]["items"]["properties"] == inner["properties"]
    assert "tools" not in translated(response_format={"type": "json_schema", "json_schema": {"schema": given}})


def test_a_member_named_like_a_keyword_is_none() -> None:
    given = {"type": "object", "properties": {"minimum": {"type": "string"}, "oneOf": {"const": 1}}}
    assert answer_schema(given)["properties"] == given["properties"]


def test_definitions_are_taken() -> None:
    given = {
        "$defs": {"a/b~c": {"type": "object", "properties": {"d": {"$ref": "#/$defs/D"}}}, "D": {"type": "string"}},
        "type": "object",
        "properties": {
            "x": {"$ref": "#/$defs/a~1b~0c"},
            "y": {"anyOf": [{"$ref": "#/$defs/D"}, {"$ref": "#/$defs/D"}]},
        },
    }
    assert answer_schema(given)["$defs"]["a/b~c"]["additionalProperties"] is False


def test_a_description_of_the_schema_is_told() -> None:
    assert answer_schema(OBJECT, description="A point.", strict=True)["description"] == "A point."


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        (None, ""),
        ([], ""),
        ({"type": "integer", "minimum": 1}, ".minimum"),
        ({"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}}, ".properties.a.maxLength"),
        ({"type": "array", "items": {}, "minItems": 2}, ".minItems"),
        ({"anyOf": [{}, {"oneOf": []}]}, ".anyOf[1].oneOf"),
        ({"type": "object", "additionalProperties": True}, ".additionalProperties"),
        ({"type": "object", "additionalProperties": {"type": "string"}}, ".additionalProperties"),
        ({"type": "object", "properties": {"a": {"$ref": "#"}}}, ".$ref"),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}}, ".$ref"),
        ({"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}}, ".$ref"),
        ({"$ref": "https://example.com/schema"}, ".$ref"),
        ({"$ref": "#/$defs/nowhere"}, ".$ref"),
        ({"$ref": 7}, ".$ref"),
    ],
)
def test_what_the_api_would_refuse_is_named_row_42(schema: Any, place: str) -> None:
    assert schema_refused(schema) == place


def test_a_schema_that_is_nested_too_deeply() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    assert schema_refused(deep) is not None


def test_many_uses_of_many_definitions_are_looked_through_once() -> None:
    """A schema whose definitions each use the next twice: followed by each use it would have 2^300 parts."""
    uses = {f"D{n}": {"anyOf": [{"$ref": f"#/$defs/D{n + 1}"}] * 2} for n in range(300)}
    assert answer_schema({"$defs": uses | {"D300": {"type": "string"}}, "$ref": "#/$defs/D0"})
