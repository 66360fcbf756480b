"""Translates a chat completion's request into one of the Messages API, version 2023-06-01 (ADR 35).

A neutral value and a hint that does not change the answer are dropped; anything else without a counterpart is refused
by its name. What a model refuses and another takes is left to the provider to say.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from proxy.dialects.anthropic import fields, messages, schemas, tools
from proxy.dialects.chat import Invalid

API_VERSION = "2023-06-01"
"""The newest that takes `temperature` and `top_p` (https://platform.claude.com/docs/en/api/versioning)."""

_HINTS = frozenset(
    ("seed", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "prediction", "stream_options")
)
"""Dropped; they change what an answer costs or how it repeats, never what may be in it."""
_ELSEWHERE = frozenset(
    [
        "model",
        "messages",
        "stream",
        "metadata",
        "max_tokens",
        "max_completion_tokens",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "user",
        "safety_identifier",
        "reasoning_effort",
        "thinking",
        "response_format",
    ]
)
"""Read by name below."""
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "store": (False,),
    "verbosity": ("medium",),
    "modalities": (["text"],),
    "functions": ([],),
}
"""The only values that may be given, which are dropped."""
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh"}
_TIERS = {"auto": "auto", "default": "standard_only"}


def translate(body: bytes, *, default_max_tokens: int) -> bytes | Invalid:
    """Return the body for the Messages API; `body` was read by `chat.parse`, and its model is the target's.

    `default_max_tokens` is asked for where the client names no bound: the API wants one.
    """
    try:
        request = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        return Invalid(f"The body cannot be read: {str(error) or 'it is nested too deeply'}.")
    try:
        return msgspec.json.encode(_translated(request, default_max_tokens))
    except fields.UntranslatableError as refused:
        return refused.invalid
    except RecursionError:
        return Invalid("The body is nested too deeply.")


def _translated(request: dict[str, Any], default_max_tokens: int) -> dict[str, Any]:
    talk = messages.conversation(request.get("messages"))
    found: dict[str, Any] = {"model": request["model"], "max_tokens": _max_tokens(request, default_max_tokens)}
    if talk.system:
        found["system"] = talk.system
    found["messages"] = talk.turns
    found |= tools.translated(request, talk.tool_names)
    for name, value in request.items():
        if value is None or name in _ELSEWHERE or name in _HINTS:
            continue
        if (read := _READERS.get(name)) is not None:
            found |= read(value, name)
        elif name not in _NEUTRAL or not any(_same(value, neutral) for neutral in _NEUTRAL[name]):
            fields.unsupported(name)
    found |= _identity(request) | _thinking(request) | _format(request.get("response_format"))
    if (effort := _effort(request.get("reasoning_effort"))) is not None:
        found["output_config"] = {"effort": effort} | found.get("output_config", {})
    return found | ({"stream": True} if request.get("stream") else {})


def _max_tokens(request: dict[str, Any], default: int) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = request.get(name)
        if value is not None:
            number = _number(value, name)
            return int(number) if number >= 1 and number == int(number) else fields.refuse(name, "must be 1 or more")
    return default


def _number(value: Any, param: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return fields.refuse(param, "must be a number")


def _same(value: Any, neutral: Any) -> bool:
    """Compare as JSON does: 0 and 0.0 are one number, false is none."""
    return bool(value == neutral) and isinstance(value, bool) == isinstance(neutral, bool)


def _sampling(value: Any, name: str) -> dict[str, Any]:
    number = _number(value, name)
    if not 0 <= number <= 1:
        fields.refuse(name, "must be from 0 to 1 for this model's provider")
    return {} if number == 1 else {name: value}


def _stop(value: Any, name: str) -> dict[str, Any]:
    words = [value] if isinstance(value, str) else fields.sequence(value, name)
    for word in words:
        if not fields.text(word, name).strip():
            fields.refuse(name, "must not hold a text of only blanks")
    return {"stop_sequences": words} if words else {}


def _tier(value: Any, name: str) -> dict[str, Any]:
    return {name: _TIERS[value]} if isinstance(value, str) and value in _TIERS else fields.unsupported(name)


def _extension(value: Any, name: str) -> dict[str, Any]:
    """Pass on a member of the Messages API that chat completions lack."""
    return {name: value}


_READERS: dict[str, Callable[[Any, str], dict[str, Any]]] = {
    "temperature": _sampling,
    "top_p": _sampling,
    "stop": _stop,
    "service_tier": _tier,
    "top_k": _extension,
    "cache_control": _extension,
}


def _identity(request: dict[str, Any]) -> dict[str, Any]:
    """Return who asks, as a hash: the API refuses e-mail addresses and telephone numbers."""
    for name in ("safety_identifier", "user"):
        if request.get(name):
            known = fields.text(request[name], name).encode("utf-8", "surrogatepass")
            return {"metadata": {"user_id": hashlib.sha256(known).hexdigest()}}
    return {}


def _thinking(request: dict[str, Any]) -> dict[str, Any]:
    given = request.get("thinking")
    if given is not None:
        if request.get("reasoning_effort") == "none":
            fields.refuse("reasoning_effort", "must not be none beside thinking")
        return {"thinking": fields.mapping(given, "thinking")}
    return {"thinking": {"type": "disabled"}} if request.get("reasoning_effort") == "none" else {}


def _effort(value: Any) -> str | None:
    if value is None or value == "none":
        return None
    if isinstance(value, str) and value in _EFFORTS:
        return _EFFORTS[value]
    return fields.refuse("reasoning_effort", f"must be none, {', '.join(_EFFORTS)}")


def _format(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    wanted = fields.mapping(value, "response_format")
    kind = wanted.get("type")
    if kind == "text":
        return {}
    if kind != "json_schema":
        fields.refuse("response_format.type", "must be text or json_schema for this model's provider")
    param = "response_format.json_schema"
    named = fields.mapping(wanted.get("json_schema"), param)
    fields.only(named, ("name", "schema", "strict", "description"), param)
    schema = schemas.of_answer(named.get("schema"), f"{param}.schema")
    if isinstance(named.get("description"), str):
        schema = {"description": named["description"]} | schema
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
