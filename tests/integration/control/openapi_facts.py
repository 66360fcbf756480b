"""Reduces an OpenAPI document to facts that can be compared: operations, their parameters, their fields, their bounds.

To take them anew from a published document, at the top of a checkout:

    .venv/bin/python -m tests.integration.control.openapi_facts published.json > tests/data/management_facts.json
"""

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

Json = Mapping[str, Any]
Facts = dict[str, str]
"""``POST /v1/x body a.b[].c`` to ``string, required``, and ``POST /v1/x body a.b[].c maxLength`` to ``255``."""

_METHODS = {"get", "post", "put", "patch", "delete"}
_BOUNDS = ("minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems")


def facts(document: Json) -> Facts:
    """Return every fact of every operation."""
    return dict(_facts(document))


def _facts(document: Json) -> Iterator[tuple[str, str]]:
    for path, item in document["paths"].items():
        for method in sorted(_METHODS & item.keys()):
            operation, name = item[method], f"{method.upper()} {path}"
            yield name, "operation"
            for parameter in [*item.get("parameters", ()), *operation.get("parameters", ())]:
                yield from _parameter(document, parameter, name)
            for content in operation.get("requestBody", {}).get("content", {}).values():
                yield from _members(document, content["schema"], f"{name} body")
            for content in operation["responses"]["200"].get("content", {}).values():
                yield from _members(document, content["schema"], f"{name} answer")


def _parameter(document: Json, parameter: Json, operation: str) -> Iterator[tuple[str, str]]:
    if "$ref" in parameter or parameter["in"] == "path":  # the published ones are named alone
        yield f"{operation} path {parameter.get('name') or parameter['$ref'].rpartition('/')[2]}", "required"
        return
    where = f"{operation} {parameter['in']} {parameter['name']}"
    yield where, _kind(document, parameter["schema"]) + (", required" if parameter.get("required") else "")
    yield from _bounds(document, parameter["schema"], where)


def _members(document: Json, schema: Json, where: str) -> Iterator[tuple[str, str]]:
    for alternative in _alternatives(document, schema):
        separator = "." if " body " in where or " answer " in where else " "
        if alternative.get("type") == "array":
            yield f"{where}[]", _kind(document, alternative["items"])
            yield from _bounds(document, alternative["items"], f"{where}[]")
            yield from _members(document, alternative["items"], f"{where}[]")
        for field, member in alternative.get("properties", {}).items():
            required = ", required" if field in alternative.get("required", ()) else ""
            yield f"{where}{separator}{field}", _kind(document, member) + required
            yield from _bounds(document, member, f"{where}{separator}{field}")
            yield from _members(document, member, f"{where}{separator}{field}")


def _bounds(document: Json, schema: Json, where: str) -> Iterator[tuple[str, str]]:
    if "default" in schema:
        yield f"{where} default", json.dumps(schema["default"])
    for each in _alternatives(document, schema):
        for bound in _BOUNDS:
            if bound in each:
                yield f"{where} {bound}", str(each[bound])


def _kind(document: Json, schema: Json) -> str:
    return " or ".join(sorted({name for each in _alternatives(document, schema) for name in _names(each)}))


def _names(schema: Json) -> Iterator[str]:
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else ())
    if allowed:
        yield "one of " + " ".join(sorted(each for each in allowed if each is not None))
        yield from ("null" for each in allowed if each is None)
        return
    types = schema.get("type", "anything")
    for name in [types] if isinstance(types, str) else types:
        yield schema.get("format", name) if name == "string" else name


def _alternatives(document: Json, schema: Json) -> Iterator[Json]:
    if "$ref" in schema:
        yield from _alternatives(document, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
        return
    several = schema.get("anyOf") or schema.get("oneOf")
    if not several:
        yield schema
    for each in several or ():
        yield from _alternatives(document, each)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as published:  # noqa: PTH123 - a script of one line
        sys.stdout.write(json.dumps(facts(json.load(published)), indent=1, sort_keys=True) + "\n")
