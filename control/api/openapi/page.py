"""The OpenAPI document as a page for people: one file of plain HTML, at ``/schema``."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from litestar import Request
from litestar.openapi.plugins import OpenAPIRenderPlugin

Json = Mapping[str, Any]

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code{background:#f3f3f3;padding:0 .2em}summary{cursor:pointer}details{margin:.3rem 0 .3rem 1rem}
th,td{text-align:left;vertical-align:top;padding:.1rem 1rem .1rem 0}b{font-family:monospace}
"""


_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
"""Of the page and the document: a browser that shows them runs nothing, asks nobody and is put in no frame."""


class SchemaPage(OpenAPIRenderPlugin):
    """Renders the page. For the root of the schema's path."""

    def __init__(self) -> None:
        super().__init__(path=("/", "/page"))

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the whole page."""
        return "\n".join(_page(openapi_schema)).encode()


def _page(document: Json) -> Iterator[str]:
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    yield f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
    yield f"<h1>{title}</h1><p>The same as a document for programs: <a href=/schema/openapi.json>openapi.json</a>.</p>"
    for scheme in document["components"].get("securitySchemes", {}).values():
        yield f"<p><code>{escape(scheme['name'])}</code>: {escape(scheme.get('description', ''))}</p>"
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield from _operation(path, method, operation)
    yield "<h2>Bodies</h2>"
    for name, schema in sorted(document["components"].get("schemas", {}).items()):
        yield from _schema(name, schema)


def _operation(path: str, method: str, operation: Json) -> Iterator[str]:
    yield f"<details><summary><b>{method.upper()} {escape(path)}</b> {escape(operation.get('summary', ''))}</summary>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    for parameter in operation.get("parameters", ()):
        required = ", required" if parameter.get("required") else ""
        said = f"{parameter['in']}{required}. {parameter.get('description', '')}"
        yield f"<p><code>{escape(parameter['name'])}</code> {_type(parameter['schema'])} ({escape(said)})</p>"
    for content in operation.get("requestBody", {}).get("content", {}).values():
        yield f"<p>Body: {_type(content['schema'])}</p>"
    for status, answer in operation["responses"].items():
        bodies = ", ".join(_type(content["schema"]) for content in answer.get("content", {}).values())
        yield f"<p><code>{status}</code> {bodies} {escape(answer.get('description', ''))}</p>"
    yield "</details>"


def _schema(name: str, schema: Json) -> Iterator[str]:
    yield f'<details id="{escape(name)}"><summary><b>{escape(name)}</b></summary>'
    yield f"<p>{escape(schema.get('description', ''))} {_type(schema) if 'enum' in schema else ''}</p><table>"
    for field, member in schema.get("properties", {}).items():
        required = "required" if field in schema.get("required", ()) else ""
        default = member.get("default")
        unsaid = f"default <code>{escape(json.dumps(default))}</code>. " if default else ""
        said = unsaid + escape(member.get("description", ""))
        yield f"<tr><td><code>{escape(field)}</code><td>{_type(member)}<td>{required}<td>{said}</tr>"
    yield "</table></details>"


def _type(schema: Json) -> str:
    """Say what a schema allows, in a few words."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_type(each) for each in schema[several])
    allowed = schema.get("enum", [schema["const"]] if "const" in schema else ())
    if allowed:
        return " | ".join(f"<code>{escape(str(each))}</code>" for each in allowed)
    bounds = ("pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems")
    within = ", ".join(f"{bound} {schema[bound]}" for bound in bounds if bound in schema)
    said = escape(f" ({within})" if within else "")
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}{said}"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"by name: {_type(schema['additionalProperties'])}"
    return escape(str(schema.get("format") or schema.get("type", "any"))) + said
