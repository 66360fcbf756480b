"""Renders pages: the templates, what they may call, and the headers that every answer carries.

Never marks a text as safe: whatever comes from a person, an upstream or a receiver is escaped by the templates.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from importlib import resources
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Response
from litestar.plugins.jinja import JinjaTemplateEngine

from control.api.common import ManagementRequest
from control.console import guard
from control.core.refusals import RefusalError
from schemas.base import rfc3339

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
Item = TypeVar("Item")
KEPT_NOWHERE = {"cache-control": "no-store"}

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}


def _files() -> Mapping[str, bytes]:
    folder = resources.files("control.console") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


class Pages:
    """The templates and the files beside them, read once."""

    def __init__(self) -> None:
        environment = Environment(
            loader=PackageLoader("control.console"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._static = _files()
        environment.globals |= {"asset": self._asset, "address": address}
        environment.filters |= {each.__name__: each for each in (number, money, utc, field, words, share)}
        environment.filters["moment"] = rfc3339
        self._engine = JinjaTemplateEngine.from_environment(environment)

    def page(self, request: ManagementRequest, template: str, *, status: int = 200, **context: Any) -> Response[str]:
        """Return a page of whoever is signed in; `person` and `path` are there for every template."""
        person = request.scope.get("auth")
        given = {"person": person, "path": request.url.path, "problem": None, **context}
        body = self._engine.get_template(template).render(**given)
        return Response(body, status_code=status, media_type=MediaType.HTML, headers=HEADERS | KEPT_NOWHERE)

    def refused(self, request: ManagementRequest, template: str, error: RefusalError, **context: Any) -> Response[str]:
        """Return the page of a form again, with why it was refused; what was refused is named by `problem`."""
        return self.page(request, template, status=400, problem=error.message, **context)

    def file(self, name: str) -> Response[bytes] | None:
        """Return a file beside the templates, None where there is none."""
        body = self._static.get(name)
        if body is None:
            return None
        media_type = _TYPES["." + name.rpartition(".")[2]]
        headers = HEADERS | {"cache-control": "public, max-age=31536000, immutable"}
        return Response(body, media_type=media_type, headers=headers)

    def _asset(self, name: str) -> str:
        """Return the address of a file; another content has another address."""
        return f"/console/static/{name}?v={hashlib.sha256(self._static[name]).hexdigest()[:12]}"


def cut(found: Sequence[Item], size: int, cursor: Callable[[Item], str]) -> tuple[Sequence[Item], str | None]:
    """Return a page of the `size` + 1 items that were asked for, and the cursor of the next, None where none is."""
    return found[:size], cursor(found[size - 1]) if len(found) > size else None


def moved(path: str) -> Response[None]:
    """Return the answer of an action that was done: look at this page."""
    return Response(None, status_code=303, headers=HEADERS | KEPT_NOWHERE | {"location": guard.own_path(path)})


def file(text: str, media_type: str, name: str) -> Response[str]:
    """Return a file that a browser saves under a name, which must be of our own making."""
    headers = HEADERS | KEPT_NOWHERE | {"content-disposition": f'attachment; filename="{name}"'}
    return Response(text, media_type=media_type, headers=headers)


def address(*segments: str, **query: str | int | None) -> str:
    """Return an address of the console; every segment and value is quoted, and a value of None left out."""
    asked = urlencode({name: value for name, value in query.items() if value not in {None, ""}})
    return "/console/" + "/".join(quote(segment, safe="") for segment in segments) + (f"?{asked}" if asked else "")


def money(amount: str | None) -> str:
    """Return an amount, a decimal string, with its thousands grouped; a dash where there is none."""
    return "–" if amount is None else f"{Decimal(amount):,f}"  # noqa: RUF001 (the dash of tables)


def indented(text: str) -> str:
    """Return a JSON text with a line for each member, or as it is where it is no JSON."""
    try:
        return msgspec.json.format(text)
    except msgspec.DecodeError:
        return text


def number(value: float | None) -> str:
    """Return a count with its thousands grouped; a dash where there is none."""
    return "–" if value is None else f"{value:,}"  # noqa: RUF001 (the dash of tables)


def utc(moment: datetime) -> str:
    """Return a time for people, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def field(moment: datetime | None) -> str:
    """Return a time as a field of a form holds it, in UTC; empty where there is none."""
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def words(name: str) -> str:
    """Return a name of a contract as words: NOT_DUE and not_due are `not due`."""
    return name.replace("_", " ").lower()


def share(used: int | None, threshold: int) -> int:
    """Return how much of a limit is used, in whole percent rounded down, 0 to 100; a limit of 0 is used up."""
    if threshold <= 0:
        return 100
    return min(100, 100 * (used or 0) // threshold)
