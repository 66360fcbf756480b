"""Translates the tools of a chat completion, and which of them the model is to call."""

import re
from collections.abc import Iterable
from typing import Any

from proxy.dialects.anthropic import fields, schemas

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_CHOICES = {"none": "none", "auto": "auto", "required": "any"}


def translated(request: dict[str, Any], called: Iterable[str]) -> dict[str, Any]:
    """Return `tools` and `tool_choice`, where there are any. Raise RefusedError.

    `called` names the tools of the calls in the messages: the API wants them declared, so where the request has no
    tools they are, and the model may not call them.
    """
    tools = [
        _tool(tool, f"tools[{number}]")
        for number, tool in enumerate(fields.sequence(request.get("tools") or [], "tools"))
    ]
    choice = _choice(request.get("tool_choice"))
    if not tools:
        if choice is not None and choice["type"] not in ("none", "auto"):
            fields.refuse("tool_choice", "asks for a tool, and there are no tools")
        declared = [{"name": name, "input_schema": dict(schemas.OPEN)} for name in called]
        return {"tools": declared, "tool_choice": {"type": "none"}} if declared else {}
    if _one_at_a_time(request.get("parallel_tool_calls")) and (choice is None or choice["type"] != "none"):
        choice = (choice or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    return {"tools": tools} | ({"tool_choice": choice} if choice is not None else {})


def _tool(value: Any, param: str) -> dict[str, Any]:
    tool = fields.mapping(value, param)
    if tool.get("type") != "function":
        fields.refuse(f"{param}.type", "must be function for this model's provider")
    fields.only(tool, ("type", "function", "cache_control"), param)
    function = fields.mapping(tool.get("function"), f"{param}.function")
    fields.only(function, ("name", "description", "parameters", "strict"), f"{param}.function")
    name = fields.text(function.get("name"), f"{param}.function.name")
    if not _NAME.fullmatch(name):
        fields.refuse(f"{param}.function.name", "may have 1 to 128 letters, digits, _ and -")
    found: dict[str, Any] = {"name": name}
    if isinstance(function.get("description"), str):
        found["description"] = function["description"]
    found["input_schema"] = schemas.of_tool(function.get("parameters"), name, f"{param}.function.parameters")
    if _flag(function.get("strict"), f"{param}.function.strict"):
        found["strict"] = True
    if tool.get("cache_control") is not None:
        found["cache_control"] = fields.mapping(tool["cache_control"], f"{param}.cache_control")
    return found


def _choice(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if isinstance(value, str) and value in _CHOICES:
        return {"type": _CHOICES[value]}
    if isinstance(value, dict) and value.get("type") == "function":
        function = fields.mapping(value.get("function"), "tool_choice.function")
        return {"type": "tool", "name": fields.text(function.get("name"), "tool_choice.function.name")}
    return fields.refuse("tool_choice", "must be none, auto, required or a function for this model's provider")


def _one_at_a_time(value: Any) -> bool:
    return value is not None and not _flag(value, "parallel_tool_calls")


def _flag(value: Any, param: str) -> bool:
    return value if isinstance(value, bool) else value is not None and fields.refuse(param, "must be true or false")
