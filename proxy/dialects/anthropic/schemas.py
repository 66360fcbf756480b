"""Fits JSON Schemas to what the Messages API takes (https://platform.claude.com/docs/en/build-with-claude/structured-outputs).

What it would refuse is refused here by name; an object that says nothing of further members allows none.
"""

from collections.abc import Iterator
from typing import Any

from proxy.dialects.anthropic import fields

OPEN = {"type": "object", "properties": {}}
"""The schema of a tool that has none."""

_DEEPEST = 64
_DEFINITIONS = ("$defs", "definitions")
_NAMED = ("properties", *_DEFINITIONS)
_LISTED = ("anyOf", "allOf", "prefixItems")
_REFUSED = frozenset(
    [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "maxItems",
        "uniqueItems",
        "minContains",
        "maxContains",
        "minProperties",
        "maxProperties",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "patternProperties",
        "propertyNames",
        "dependentSchemas",
        "dependentRequired",
        "unevaluatedProperties",
    ]
)
_ALTERNATIVES = ("oneOf", "anyOf", "allOf")


def of_answer(schema: Any, param: str) -> dict[str, Any]:
    """Return the schema that an answer is to follow. Raise RefusedError, which names a keyword that is not taken."""
    root = fields.mapping(schema, param)
    _refuse_recursion(root, param)
    return _fitted(root, param, 0)


def of_tool(schema: Any, name: str, param: str) -> dict[str, Any]:
    """Return the schema of a tool's input. Raise RefusedError, which names the tool."""
    if schema is None:
        return dict(OPEN)
    found = fields.mapping(schema, param)
    for keyword in _ALTERNATIVES:
        if keyword in found:
            fields.refuse(param, f"of the tool {name!r} must not have {keyword} at its top")
    if found.get("type", "object") != "object":
        fields.refuse(f"{param}.type", f"of the tool {name!r} must be object")
    return found if "type" in found else {"type": "object"} | found


def _fitted(schema: dict[str, Any], param: str, depth: int) -> dict[str, Any]:
    if depth > _DEEPEST:
        fields.refuse(param, "is nested too deeply")
    for keyword, value in schema.items():
        if keyword in _REFUSED or (keyword == "minItems" and value not in (0, 1)):
            fields.refuse(f"{param}.{keyword}", "is not supported by this model's provider")
    fitted = dict(schema)
    for keyword, where, part in _parts(schema):
        if isinstance(part, dict):
            inner = _fitted(part, f"{param}.{keyword}{_place(where)}", depth + 1)
            if where is None:
                fitted[keyword] = inner
            else:
                if fitted[keyword] is schema[keyword]:
                    fitted[keyword] = schema[keyword].copy()
                fitted[keyword][where] = inner
    if "object" in (schema.get("type") or ()) or "properties" in schema:
        if schema.get("additionalProperties", False) is not False:
            fields.refuse(f"{param}.additionalProperties", "must be false for this model's provider")
        fitted["additionalProperties"] = False
    return fitted


def _parts(schema: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Return each schema within a schema: its keyword, its name or number under it (None: itself), and it."""
    for keyword, value in schema.items():
        if keyword in _NAMED and isinstance(value, dict):
            yield from ((keyword, name, part) for name, part in value.items())
        elif keyword in _LISTED and isinstance(value, list):
            yield from ((keyword, number, part) for number, part in enumerate(value))
        elif keyword == "items":
            yield keyword, None, value


def _place(where: Any) -> str:
    if where is None:
        return ""
    return f"[{where}]" if isinstance(where, int) else f".{where}"


def _refuse_recursion(root: dict[str, Any], param: str) -> None:
    """Raise RefusedError where a definition leads back to itself, or a `$ref` to anything but a definition."""
    uses = {"#": _references(root, param, 0, top=True)}
    for keyword in _DEFINITIONS:
        named = root.get(keyword)
        for name, part in (named if isinstance(named, dict) else {}).items():
            uses[f"#/{keyword}/{_escaped(name)}"] = _references(part, f"{param}.{keyword}.{name}", 0)
    done: set[str] = set()
    for start, used in uses.items():
        path: list[tuple[str, Iterator[str]]] = [(start, iter(used))]
        on_path = {start}
        while path:
            name, rest = path[-1]
            following = next(rest, None)
            if following is None:
                path.pop()
                on_path.discard(name)
                done.add(name)
            elif following not in uses:
                fields.refuse(f"{param}.$ref", f"must name a definition of the schema, not {following!r}")
            elif following in on_path:
                fields.refuse(f"{param}.$ref", f"must not lead back to itself, as {following!r} does")
            elif following not in done:
                on_path.add(following)
                path.append((following, iter(uses[following])))


def _references(schema: Any, param: str, depth: int, *, top: bool = False) -> set[str]:
    """Return what the `$ref` within a schema name; of the `top` one without its definitions."""
    if depth > _DEEPEST:
        fields.refuse(param, "is nested too deeply")
    if not isinstance(schema, dict):
        return set()
    found = {fields.text(schema["$ref"], f"{param}.$ref")} if "$ref" in schema else set()
    for keyword, _, part in _parts(schema):
        if not (top and keyword in _DEFINITIONS):
            found |= _references(part, param, depth + 1)
    return found


def _escaped(name: str) -> str:
    """Return a name as a JSON pointer writes it (RFC 6901 3)."""
    return name.replace("~", "~0").replace("/", "~1")
