"""The error body, and which status each failure gets (contract 2).

Never answers 500 to an input, and never shows a lab what went wrong inside.
"""

import logging
from typing import Any

from litestar import MediaType, Response
from litestar.exceptions import HTTPException, SerializationException, ValidationException
from litestar.openapi import ResponseSpec
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from control.api import common, error_texts
from control.core import refusals
from runtime import outage
from runtime.database.engines import TransactionTooLongError
from schemas.api import ErrorBody, ErrorDetail

_MAX_MESSAGE = 500
_SOON = {"retry-after": "1"}

_log = logging.getLogger(__name__)


def refused(_: Any, error: refusals.RefusalError) -> Response[ErrorBody]:
    """Answer what control itself refused."""
    statuses = {
        refusals.InvalidError: 400,
        refusals.UnauthorizedError: 401,
        refusals.ForbiddenError: 403,
        refusals.NotFoundError: 404,
        refusals.ConflictError: 409,
        refusals.PreconditionError: 412,
        refusals.UnsupportedError: 415,
        refusals.ShareExceededError: 429,
        refusals.OverloadedError: 503,
    }
    status = statuses[type(error)]
    headers = {401: {"www-authenticate": "Api-Key"}, 429: _SOON, 503: _SOON}.get(status)
    return answer(status, error.message, param=error.param, code=error.code, headers=headers)


def not_served(request: Any, error: HTTPException) -> Response[ErrorBody]:
    """Answer what the framework refused: an unread parameter, an unknown path or method, a body too large."""
    if error.status_code >= 500:
        return failed(request, error)
    if isinstance(error, ValidationException | SerializationException):
        return _invalid(request, error)
    codes = {404: "not_found", 408: "body_timeout", 405: "method_not_allowed", 413: "body_too_large"}
    messages = {
        404: "nothing is at this path",
        405: "this path does not take this method",
        413: f"the body may hold at most {common.MAX_BODY_BYTES} bytes",
    }
    message = messages.get(error.status_code, error.detail)
    headers = dict(error.headers or {})
    if "allow" in headers:  # OPTIONS is the framework's own, and refused too (`control.app`)
        headers["allow"] = ", ".join(sorted(set(headers["allow"].split(", ")) - {"OPTIONS"}))
    return answer(error.status_code, message, code=codes.get(error.status_code), headers=headers)


def conflicted(_: Any, __: IntegrityError) -> Response[ErrorBody]:
    """Answer where another change took the same name at the same moment."""
    return answer(400, "another change took the same name at the same moment; send it again", code="conflict")


def database_failed(request: Any, error: DBAPIError) -> Response[ErrorBody]:
    """Answer what the database said: that it is away or busy, or that a statement of ours is wrong."""
    return unavailable(request, error) if outage.is_transient(error) else failed(request, error)


def unavailable(_: Any, error: Exception) -> Response[ErrorBody]:
    """Answer where the database cannot be reached or does not end a transaction."""
    _log.warning("a management request failed, the database was away: %s", type(error).__name__)
    return answer(503, "the database is unavailable; send it again later", code="database_unavailable")


def failed(_: Any, error: Exception) -> Response[ErrorBody]:
    """Answer a bug of ours, and say it in the log."""
    _log.error("a management request failed", exc_info=error)
    return answer(500, "an internal error; it is in the gateway's log", code="internal_error")


EXCEPTION_HANDLERS: dict[int | type[Exception], Any] = {
    refusals.RefusalError: refused,
    HTTPException: not_served,
    IntegrityError: conflicted,
    DBAPIError: database_failed,
    PoolTimeoutError: unavailable,
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
        405: "The path does not take this method; `Allow` names those that it takes.",
        429: "The workspace has its share of something under way; `Retry-After` says when to send it again.",
        503: "The database is unavailable, or all workspaces together have as much under way as the gateway takes.",
    }.items()
}
CHANGED = {
    412: ResponseSpec(ErrorBody, generate_examples=False, description="It was changed since `If-Match` was read.")
}
WRITE_ERRORS = READ_ERRORS | {
    408: ResponseSpec(ErrorBody, generate_examples=False, description="The body did not arrive in time."),
    413: ResponseSpec(ErrorBody, generate_examples=False, description="The body is too large."),
    415: ResponseSpec(ErrorBody, generate_examples=False, description="The body is not JSON."),
}
REPEATABLE = WRITE_ERRORS | {
    409: ResponseSpec(
        ErrorBody, generate_examples=False, description="The `Idempotency-Key` is another body's, or under way."
    )
}


def answer(
    status: int, message: str, *, param: str | None = None, code: str | None = None, headers: Any = None
) -> Response[ErrorBody]:
    """Return the error body of contract 2."""
    types = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    type_ = "server_error" if status >= 500 else types.get(status, "invalid_request_error")
    detail = ErrorDetail(message=message[:_MAX_MESSAGE], type=type_, param=param, code=code)
    return Response(ErrorBody(error=detail), status_code=status, media_type=MediaType.JSON, headers=headers)


def _invalid(request: Any, error: ValidationException | SerializationException) -> Response[ErrorBody]:
    given = getattr(error, "extra", None)
    extra = given if isinstance(given, list) else []
    first = extra[0] if extra and isinstance(extra[0], dict) else {}
    param = first.get("key")
    if param == "data":
        return answer(400, "the body is missing; send a JSON object", code="invalid_body")
    message = error_texts.wrong_parameter(request.route_handler, param) if param else error.detail
    return answer(400, message, param=param, code="invalid_query")
