"""What a refusal of a body or a query says: which field, and what is allowed there (contract 2).

A value that was sent is not repeated: it may be a secret.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, get_args

from litestar.handlers import BaseRouteHandler
from litestar.params import ParameterKwarg, QueryParameter
from litestar.typing import FieldDefinition
from pydantic import BaseModel, ValidationError

from control.core.refusals import InvalidError
from schemas.base import NO_CONTROL_CHARACTERS

_LONGEST_PATH = 200

_OWN_WORDS = {
    "tuple_type": "must be a list",
    "too_short": "must hold at least {min_length}, not {actual_length}",
    "too_long": "must hold at most {max_length}, not {actual_length}",
    "missing": "is required",
}
"""In place of what pydantic says; by its type of error."""


def wrong_body(contract: type[BaseModel], error: ValidationError) -> InvalidError:
    """Return the refusal of a body that is not by its contract."""
    problem = error.errors(include_url=False, include_input=False)[0]
    path = ""
    for part in problem["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    path = json.dumps(path)[1:-1][:_LONGEST_PATH]
    if problem["type"] == "extra_forbidden":
        text = f"is not a known field; known are {', '.join(_fields(contract, problem['loc'][:-1]))}"
    elif problem.get("ctx", {}).get("pattern") == NO_CONTROL_CHARACTERS:
        text = "must not hold control characters"
    elif problem["type"] in _OWN_WORDS:
        text = _OWN_WORDS[problem["type"]].format_map(problem.get("ctx", {}))
    else:
        text = problem["msg"].removeprefix("Value error, ")
    return InvalidError(f"{path}: {text}" if path else text, param=path or None, code="invalid_body")


def wrong_parameter(handler: BaseRouteHandler, name: str) -> str:
    """Say what a parameter of a route may be."""
    field = handler.parsed_fn_signature.parameters[name]
    words = _words(field)
    if words:
        return f"{name}: must be one of {', '.join(words)}"
    bounds = field.kwarg_definition
    if field.annotation is int and isinstance(bounds, ParameterKwarg):
        return f"{name}: must be a whole number from {bounds.ge} to {bounds.le}"
    return f"{name}: cannot be read"


def check_query(handler: BaseRouteHandler, query: Sequence[tuple[str, str]]) -> None:
    """Refuse what would be passed over in silence. Raise InvalidError.

    That is a name that the route does not know, two values of one name, and `null`, which the framework takes for None.
    """
    fields = handler.parsed_fn_signature.parameters
    known = dict(_query_fields(fields))
    seen: dict[str, str] = {}
    for name, value in query:
        param = json.dumps(name)[1:-1][:_LONGEST_PATH]
        if name not in known:
            takes = f"known are {', '.join(known)}" if known else "nothing may stand there"
            raise InvalidError(f"{param}: is not known in this query; {takes}", param=param, code="invalid_query")
        if seen.setdefault(name, value) != value:
            raise InvalidError(f"{param}: may be given only once", param=param, code="invalid_query")
        words = _words(known[name])
        if words and value not in words:
            raise InvalidError(f"{name}: must be one of {', '.join(words)}", param=param, code="invalid_query")


def _query_fields(fields: Mapping[str, FieldDefinition]) -> Iterator[tuple[str, FieldDefinition]]:
    """Return what a route's query may hold, by the names of the wire."""
    for name, field in fields.items():
        if isinstance(field.kwarg_definition, QueryParameter):
            yield field.kwarg_definition.name or name, field


def _words(field: FieldDefinition) -> Sequence[str]:
    """Return what a parameter may be where it is one of a few words; else nothing."""
    kinds = [kind for kind in get_args(field.annotation) or (field.annotation,) if isinstance(kind, type)]
    return [str(each.value) for kind in kinds if issubclass(kind, Enum) for each in kind]


@cache
def _schema(contract: type[BaseModel]) -> Mapping[str, Any]:
    return contract.model_json_schema()


def _fields(contract: type[BaseModel], where: Sequence[str | int]) -> Sequence[str]:
    """Return the names of the fields that the object at `where` may have."""
    whole = _schema(contract)
    here = whole
    for part in where:
        here = _plain(whole, here)
        here = here["items"] if isinstance(part, int) else here["properties"][part]
    return list(_plain(whole, here)["properties"])


def _plain(whole: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a schema refers to, and of an optional one what it is where it is not null."""
    for each in schema.get("anyOf", ()):
        if each.get("type") != "null":
            return _plain(whole, each)
    reference = schema.get("$ref")
    return schema if reference is None else whole["$defs"][reference.rpartition("/")[2]]
