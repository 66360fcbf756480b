"""Translates the messages of a chat completion into `system` and turns.

Never moves an instruction: only leading `system` and `developer` messages become `system`, a later one is a text block
at its place. What stands between two answers of the model is one turn of the user, its tool results first, as the API
demands (https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use).
"""

import base64
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from proxy.dialects.anthropic import content, fields
from proxy.dialects.anthropic.content import Block

_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_MAPPED = "tollgate_"
"""Begins the ids that stand for what the API would not take; an id that begins so by itself is mapped as well."""
_INSTRUCTIONS = ("system", "developer")
_THINKING = {"thinking": ("type", "thinking", "signature"), "redacted_thinking": ("type", "data")}


@dataclass(slots=True)
class Conversation:
    """What a list of messages comes to."""

    system: list[Block] = field(default_factory=list)
    turns: list[dict[str, Any]] = field(default_factory=list)
    tool_names: dict[str, None] = field(default_factory=dict)
    """Of all calls, in the order in which they first come."""
    calls: set[str] = field(default_factory=set)
    """The ids of the calls of the last answer that have no result yet."""
    call_ids: set[str] = field(default_factory=set)
    """The ids of all calls."""

    def add(self, role: str, blocks: list[Block]) -> None:
        """Put blocks at the end, in the last turn where it is of that role."""
        if not self.turns or self.turns[-1]["role"] != role:
            self.turns.append({"role": role, "content": []})
        self.turns[-1]["content"] += blocks


def conversation(messages: Any) -> Conversation:
    """Return the turns of a request's `messages`. Raise RefusedError."""
    found = Conversation()
    for number, each in enumerate(fields.sequence(messages, "messages")):
        param = f"messages[{number}]"
        message = fields.mapping(each, param)
        role = message.get("role")
        if role in _INSTRUCTIONS:
            _instruct(found, message, param)
        elif role == "user":
            _ask(found, message, param)
        elif role == "assistant":
            _answer(found, message, param)
        elif role == "tool":
            _result(found, message, param)
        else:
            fields.refuse(f"{param}.role", "must be system, developer, user, assistant or tool")
    if not found.turns:
        fields.refuse("messages", "must hold a message of the user")
    for turn in found.turns:
        if turn["role"] == "user":
            turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    _strip_prefill(found.turns)
    return found


def tool_id(given: str) -> str:
    """Return an id that the API takes: the same for the same, unequal for unequal ones."""
    if _TOOL_ID.fullmatch(given) and not given.startswith(_MAPPED):
        return given
    return _MAPPED + base64.urlsafe_b64encode(given.encode("utf-8", "surrogatepass")).decode().rstrip("=")


def _instruct(found: Conversation, message: dict[str, Any], param: str) -> None:
    fields.only(message, ("role", "content"), param)
    blocks = content.texts(message.get("content"), f"{param}.content")
    if not found.turns:
        found.system += blocks
        return
    for block in blocks:
        block["text"] = f"<system>\n{block['text']}\n</system>"
    if blocks:
        found.add("user", blocks)


def _ask(found: Conversation, message: dict[str, Any], param: str) -> None:
    fields.only(message, ("role", "content"), param)
    blocks = content.blocks(message.get("content"), f"{param}.content")
    if not blocks:
        fields.refuse(f"{param}.content", "must hold more than blanks")
    found.add("user", blocks)


def _answer(found: Conversation, message: dict[str, Any], param: str) -> None:
    known = ("role", "content", "refusal", "tool_calls", "thinking_blocks", "reasoning_content", "annotations")
    fields.only(message, known, param)
    blocks = _thinking(message.get("thinking_blocks"), f"{param}.thinking_blocks")
    if message.get("content") is not None:
        blocks += content.texts(message["content"], f"{param}.content", ("text", "refusal"))
    if message.get("refusal") is not None:
        blocks += content.texts(fields.text(message["refusal"], f"{param}.refusal"), f"{param}.refusal")
    if not found.turns or found.turns[-1]["role"] != "assistant":
        found.calls.clear()
    for number, call in enumerate(fields.sequence(message.get("tool_calls") or [], f"{param}.tool_calls")):
        blocks.append(_call(found, call, f"{param}.tool_calls[{number}]"))
    found.add("assistant", blocks)


def _thinking(blocks: Any, param: str) -> list[Block]:
    found = []
    for number, each in enumerate(fields.sequence(blocks or [], param)):
        block = fields.mapping(each, f"{param}[{number}]")
        kind = block.get("type")
        if not isinstance(kind, str) or kind not in _THINKING:
            fields.refuse(f"{param}[{number}].type", "must be thinking or redacted_thinking")
        fields.only(block, _THINKING[kind], f"{param}[{number}]")
        found.append(block)
    return found


def _call(found: Conversation, value: Any, param: str) -> Block:
    call = fields.mapping(value, param)
    if call.get("type", "function") != "function":
        fields.refuse(f"{param}.type", "must be function for this model's provider")
    function = fields.mapping(call.get("function"), f"{param}.function")
    name = fields.text(function.get("name"), f"{param}.function.name")
    given = fields.text(call.get("id"), f"{param}.id")
    if given in found.call_ids:
        fields.refuse(f"{param}.id", "must be of one call only")
    found.call_ids.add(given)
    found.calls.add(given)
    found.tool_names.setdefault(name)
    arguments = _arguments(function.get("arguments"), f"{param}.function.arguments")
    return {"type": "tool_use", "id": tool_id(given), "name": name, "input": arguments}


def _arguments(value: Any, param: str) -> dict[str, Any]:
    text = fields.text(value if value is not None else "", param)
    if not text.strip():
        return {}
    try:
        arguments = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        arguments = None
    return arguments if isinstance(arguments, dict) else fields.refuse(param, "must be a JSON object, as a string")


def _result(found: Conversation, message: dict[str, Any], param: str) -> None:
    fields.only(message, ("role", "content", "tool_call_id", "name"), param)
    given = fields.text(message.get("tool_call_id"), f"{param}.tool_call_id")
    if given not in found.calls:
        fields.refuse(f"{param}.tool_call_id", "must name a call of the assistant's message before it, once")
    found.calls.remove(given)
    block: Block = {"type": "tool_result", "tool_use_id": tool_id(given)}
    if message.get("content") is not None and (blocks := content.blocks(message["content"], f"{param}.content")):
        block["content"] = blocks
    found.add("user", [block])


def _strip_prefill(turns: list[dict[str, Any]]) -> None:
    """Take the blanks from the end of an answer that the model is to go on with; the API refuses them."""
    last = turns[-1]
    if last["role"] == "assistant" and last["content"] and last["content"][-1]["type"] == "text":
        last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
