"""What the routes share: reading a body, one transaction for each request, pages, and the error body (spec section 2).

Never answers 422, and never answers 500 to an input: what cannot be read is refused with the field's name.
"""

import base64
import binascii
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from litestar import MediaType, Request, Response
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException, SerializationException, ValidationException
from litestar.openapi import ResponseSpec
from litestar.params import QueryParameter
from pydantic import BaseModel, ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from control.auth import Caller
from control.core import refusals
from control.core.refusals import InvalidError, UnsupportedError
from runtime.clock import Clock
from runtime.database import Database, TransactionTooLongError
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.api import ErrorBody, ErrorDetail, Page, Pagination

MAX_BODY_BYTES = 1024 * 1024
"""The largest body of the management API; a group of 1,000 slugs with every limit is a quarter of it."""

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_ID_LENGTH = 26
_MAX_MESSAGE = 500

Result = TypeVar("Result")
Item = TypeVar("Item")
Body = TypeVar("Body", bound=BaseModel)
Connected = ASGIConnection[Any, Any, Any, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Desk:
    """What a request works with."""

    database: Database
    vault: Vault
    clock: Clock
    settings: Settings
    poke: Callable[[], None]

    async def change(self, work: Callable[[Connection, datetime], Result]) -> Result:
        """Run `work` in one transaction with the time of the change; tell the relay once it is committed."""
        now = self.clock()
        result = await self.database.write(lambda connection: work(connection, now))
        self.poke()
        return result

    async def look(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work` on one consistent view."""
        return await self.database.read(work)


AtDesk = NamedDependency[Desk]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]


class ManagementRequest(Request[None, Caller, State]):
    """A request whose body is read by its contract, strictly: "5" is no number and 1 is no string."""

    async def json(self) -> Any:
        """Give the body as the contract that the route names. Raises InvalidError or UnsupportedError."""
        media_type, _ = self.content_type
        if media_type and media_type != MediaType.JSON:
            raise UnsupportedError("content-type: must be application/json", param="content-type")
        field = self.route_handler.parsed_data_field
        if field is None:
            raise TypeError("the route names no body")
        return read(field.annotation, await self.body())


def read(contract: type[Body], body: bytes) -> Body:
    """Read a body strictly. Raises InvalidError, which names the field and what is allowed."""
    try:
        message = contract.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise _explain(error) from None
    if "\0" in "".join(_texts(message.model_dump(mode="json"))):
        raise InvalidError("strings must not hold the character U+0000", code="invalid_body")
    return message


def page(items: Sequence[Item], limit: int, last_id: Callable[[Item], str]) -> tuple[Sequence[Item], Pagination]:
    """Cut a page of at most `limit` out of the `limit` + 1 items that were asked for."""
    if len(items) <= limit:
        return items, Pagination(has_more=False, cursor=None)
    shown = items[:limit]
    cursor = base64.urlsafe_b64encode(last_id(shown[-1]).encode()).decode().rstrip("=")
    return shown, Pagination(has_more=True, cursor=cursor)


def after(cursor: str | None) -> str:
    """Give the id that a page begins behind; "" for the first page. Raises InvalidError."""
    if cursor is None:
        return ""
    try:
        id_ = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        id_ = ""
    if len(id_) != _ID_LENGTH or not id_.isalnum():
        raise InvalidError("cursor: must be one that a page of this list gave", param="cursor", code="invalid_cursor")
    return id_


def encode(message: BaseModel) -> Any:
    """Give an answer as JSON values. Every answer sets all its fields, so that only a target's are left out."""
    return message.model_dump(mode="json", exclude_unset=True)


def refuse_nul(connection: Connected) -> None:
    """Refuse a path or query with U+0000, which no database takes. Raises InvalidError."""
    if "\0" in "".join([connection.scope["path"], *(value for _, value in connection.query_params.multi_items())]):
        raise InvalidError("the path and the query must not hold the character U+0000", code="invalid_query")


def refused(_: Any, error: refusals.RefusalError) -> Response[ErrorBody]:
    """Answer what control itself refused."""
    statuses = {
        refusals.InvalidError: 400,
        refusals.UnauthorizedError: 401,
        refusals.ForbiddenError: 403,
        refusals.NotFoundError: 404,
        refusals.UnsupportedError: 415,
    }
    return answer(statuses[type(error)], error.message, param=error.param, code=error.code)


def not_served(request: Any, error: HTTPException) -> Response[ErrorBody]:
    """Answer what the framework refused: an unread parameter, an unknown path or method, a body too large."""
    if error.status_code >= 500:
        return failed(request, error)
    if isinstance(error, ValidationException | SerializationException):
        return _invalid(error)
    codes = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
    messages = {
        404: "nothing is at this path",
        405: "this path does not take this method",
        413: f"the body may hold at most {MAX_BODY_BYTES} bytes",
    }
    message = messages.get(error.status_code, error.detail)
    return answer(error.status_code, message, code=codes.get(error.status_code), headers=error.headers)


def conflicted(_: Any, __: IntegrityError) -> Response[ErrorBody]:
    """Answer where another change took the same name at the same moment."""
    return answer(400, "another change took the same name at the same moment; send it again", code="conflict")


def unavailable(_: Any, error: SQLAlchemyError | TransactionTooLongError) -> Response[ErrorBody]:
    """Answer where the database cannot be reached or does not end a transaction."""
    _log.warning("a management request failed for want of the database: %s", type(error).__name__)
    return answer(503, "the database is unavailable; send it again later", code="database_unavailable")


def failed(_: Any, error: Exception) -> Response[ErrorBody]:
    """Answer a bug of ours, and say it in the log."""
    _log.error("a management request failed", exc_info=error)
    return answer(500, "an internal error; it is in the gateway's log", code="internal_error")


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    refusals.RefusalError: refused,
    HTTPException: not_served,
    IntegrityError: conflicted,
    SQLAlchemyError: unavailable,
    TransactionTooLongError: unavailable,
    Exception: failed,
}


READ_ERRORS = {
    status: ResponseSpec(ErrorBody, generate_examples=False, description=description)
    for status, description in {
        400: "The body, the query or the state does not allow it.",
        401: "The management key is missing, malformed or unknown.",
        403: "The management key may not do this.",
        404: "The thing named is unknown or deleted.",
        503: "The database is unavailable.",
    }.items()
}
WRITE_ERRORS = READ_ERRORS | {
    413: ResponseSpec(ErrorBody, generate_examples=False, description="The body is too large."),
    415: ResponseSpec(ErrorBody, generate_examples=False, description="The body is not JSON."),
}


def answer(
    status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Any = None
) -> Response[ErrorBody]:
    """Give the error body of spec section 2."""
    types = {401: "authentication_error", 403: "permission_error"}
    type_ = "server_error" if status >= 500 else types.get(status, "invalid_request_error")
    detail = ErrorDetail(message=message[:_MAX_MESSAGE], type=type_, param=param, code=code)
    return Response(ErrorBody(error=detail), status_code=status, media_type=MediaType.JSON, headers=headers)


def listed(items: Iterable[Item], pagination: Pagination) -> Page[Item]:
    """Give the body of a page."""
    return Page(items=tuple(items), pagination=pagination)


def _invalid(error: ValidationException | SerializationException) -> Response[ErrorBody]:
    given = getattr(error, "extra", None)
    extra = given if isinstance(given, list) else []
    first = extra[0] if extra and isinstance(extra[0], dict) else {}
    param = first.get("key")
    if param == "data":
        return answer(400, "the body is missing; send a JSON object", code="invalid_body")
    message = f"{param}: {first['message']}" if param and "message" in first else error.detail
    return answer(400, message, param=param, code="invalid_query")


def _explain(error: ValidationError) -> InvalidError:
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = ""
    for part in problem["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    path = json.dumps(path)[1:-1][:200] if path else ""
    text = "is not a known field" if problem["type"] == "extra_forbidden" else problem["msg"]
    text = text.removeprefix("Value error, ")
    return InvalidError(f"{path}: {text}" if path else text, param=path or None, code="invalid_body")


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
