"""The served description: the framework's paths and parameters, with the bodies as pydantic itself describes them.

Bodies' schemas are not left to the framework: it loses patterns, aliases and the bounds of tuples.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple, get_type_hints

from litestar import Controller
from litestar.handlers import HTTPRouteHandler
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import OpenAPI
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from control.api.openapi import examples
from schemas.api import ErrorBody

DESCRIBED_BELOW = "described_below"
"""The option of a handler that names what a client adds to its path."""
ALSO_CSV = "also_csv"
"""The option of a handler that answers as CSV too, with an example of it."""

_OF_PAGES = "One page of the list; `pagination.cursor` leads to the next."
_PAGE_NAME = re.compile(r"^Page_(\w+)_$")
_PLACE = "#/components/schemas/{model}"
_Contract = tuple[type[BaseModel], JsonSchemaMode]
_Places = Mapping[Any, Mapping[str, Any]]
"""By `_Contract`, where its schema stands in the document."""


class _Operation(NamedTuple):
    """The contracts of one operation, as its handler's signature names them."""

    body: type[BaseModel] | None
    body_required: bool
    answer: type[BaseModel]
    below: str
    """What follows the handler's own path."""
    csv: str | None
    """An example of the same answer as CSV, where a client may ask for that."""

    def contracts(self) -> Iterator[_Contract]:
        """Return what a client writes and what it reads: the same contract may look different from either side."""
        if self.body is not None:
            yield self.body, "validation"
        yield self.answer, "serialization"
        yield ErrorBody, "serialization"


@dataclass
class DescriptionConfig(OpenAPIConfig):
    """Makes the description of the operations of these controllers."""

    controllers: Sequence[type[Controller]] = ()

    def to_openapi_schema(self) -> OpenAPI:
        """Return the document that the framework fills."""
        return _Description(super().to_openapi_schema(), dict(_operations(self.controllers)))


class _Description(OpenAPI):
    def __init__(self, begun: OpenAPI, operations: Mapping[str, _Operation]) -> None:
        super().__init__(**{field.name: getattr(begun, field.name) for field in fields(begun)})
        self._operations = operations

    def to_schema(self) -> dict[str, Any]:
        """Return the document, each body described by its contract."""
        document = super().to_schema()
        contracts = dict.fromkeys(each for operation in self._operations.values() for each in operation.contracts())
        places, made = models_json_schema(list(contracts), ref_template=_PLACE, schema_generator=_Schemas)
        for described in (each for item in document["paths"].values() for each in item.values()):
            _describe(described, self._operations[described["operationId"]], places)
        document["paths"] = self._placed(document["paths"])
        enums = {name: schema for name, schema in document["components"]["schemas"].items() if "enum" in schema}
        document["components"]["schemas"] = enums | made["$defs"]  # the parameters' enums are the framework's
        return _renamed(document)

    def _placed(self, paths: Mapping[str, Any]) -> dict[str, Any]:
        """Put each operation at the path that a client calls, which its handler may take as part of a parameter."""
        placed: dict[str, Any] = {}
        for path, item in paths.items():
            for method, described in item.items():
                placed.setdefault(path + self._operations[described["operationId"]].below, {})[method] = described
        return placed


def _renamed(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with names that every language can have: `EndpointPage` for `Page_Endpoint_`.

    What looks alike from either side keeps its plain name for what is read; what is written is `...Input`.
    """
    known = document["components"]["schemas"]
    names = {name: _PAGE_NAME.sub(r"\1Page", name.replace("-Input", "Input")) for name in known}
    names |= {name: name.removesuffix("-Output") for name in known if name.endswith("-Output")}

    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: _referred(each, names) if key == "$ref" else placed(each) for key, each in value.items()}
        return [placed(each) for each in value] if isinstance(value, list) else value

    document["components"]["schemas"] = {names[name]: schema | {"title": names[name]} for name, schema in known.items()}
    renamed: dict[str, Any] = placed(document)
    return renamed


def _referred(place: str, names: Mapping[str, str]) -> str:
    folder, _, name = place.rpartition("/")
    return f"{folder}/{names.get(name, name)}"


class _Schemas(GenerateJsonSchema):
    def int_schema(self, schema: Any) -> dict[str, Any]:
        """Say that counts and thresholds may be beyond 32 bits, which generators take integers for."""
        return super().int_schema(schema) | {"format": "int64"}

    def default_schema(self, schema: Any) -> dict[str, Any]:
        """Leave out a default that is an object: generators cannot write one."""
        described = super().default_schema(schema)
        if isinstance(described.get("default"), dict):
            del described["default"]
        return described

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Leave the fields without titles, which would only repeat their names."""
        return False


def _operations(controllers: Sequence[type[Controller]]) -> Iterator[tuple[str, _Operation]]:
    for handler in (each for controller in controllers for _, each in inspect.getmembers(controller)):
        if isinstance(handler, HTTPRouteHandler):
            named, given = get_type_hints(handler.fn), inspect.signature(handler.fn).parameters.get("data")
            required = given is not None and given.default is inspect.Parameter.empty
            below, as_csv = handler.opt.get(DESCRIBED_BELOW, ""), handler.opt.get(ALSO_CSV)
            yield str(handler.operation_id), _Operation(named.get("data"), required, named["return"], below, as_csv)


def _describe(described: dict[str, Any], operation: _Operation, places: _Places) -> None:
    named = described["operationId"]
    if operation.body is not None:
        schema = places[operation.body, "validation"]
        described["requestBody"] |= {
            "required": operation.body_required,
            "content": {"application/json": {"schema": schema, "example": examples.BODIES[named]}},
        }
    for status, response in described["responses"].items():
        is_success = status == "200"
        schema = places[operation.answer if is_success else ErrorBody, "serialization"]
        example = examples.ANSWERS[named] if is_success else examples.ERROR
        response["content"] = {"application/json": {"schema": schema, "example": example}}
        if is_success:
            response["description"] = inspect.cleandoc(operation.answer.__doc__ or _OF_PAGES)
            if operation.csv is not None:
                response["content"]["text/csv"] = {"schema": {"type": "string"}, "example": operation.csv}
    for parameter in described.get("parameters", ()):
        parameter["schema"] = _sayable(parameter["schema"])
        parameter.setdefault("description", examples.PARAMETERS.get(parameter["name"]))


def _sayable(schema: dict[str, Any]) -> dict[str, Any]:
    """Take null out of what a parameter may be, which a query cannot say, and the fraction out of its bounds."""
    several = [each for each in schema.get("oneOf", ()) if each.get("type") != "null"]
    rest = {name: value for name, value in schema.items() if name != "oneOf"}
    whole = several[0] | rest if len(several) == 1 else schema
    return {name: int(value) if isinstance(value, float) else value for name, value in whole.items()}
