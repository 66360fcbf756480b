"""What the routes share: reading a body, one transaction for each request, and pages (contract 2).

What cannot be read is refused with the field's name.
"""

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

import msgspec
from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.enums import RequestEncodingType
from litestar.exceptions import HTTPException, InternalServerException
from litestar.params import HeaderParameter, QueryParameter
from litestar.response.base import ASGIResponse
from pydantic import BaseModel, PrivateAttr, ValidationError
from sqlalchemy import Connection

from control.api import error_texts
from control.api.paging import EncodedPage
from control.api.turns import ReadTurns
from control.auth import Caller
from control.core import preconditions
from control.core.refusals import ConflictError, InvalidError, UnsupportedError
from control.flow import repeats
from control.reconciliations import Reconciliations
from control.sample_delivery import SampleDelivery
from control.store import units
from control.trial_call import TrialCall
from control.unit_of_work import UnitOfWork
from runtime.clock import Clock
from runtime.config import log as config_log
from runtime.database.engines import Database
from runtime.database.readers import ReaderKind
from runtime.settings import Settings
from runtime.vault import Vault
from schemas.api import ApiKey, Endpoint, Group, Page, Pagination
from schemas.money import UsageLine

MAX_BODY_BYTES = 1024 * 1024
"""The largest body of the management API; a group of 1,000 slugs with every limit is a quarter of it."""

BODY_TIMEOUT_S = 30
"""How long a body may take to arrive: an open connection must not be held for nothing."""

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000

_ID_LENGTH = 26

_READ_AS_JSON = {"", RequestEncodingType.JSON, RequestEncodingType.URL_ENCODED, "application/merge-patch+json"}
"""Also what curl names where it is told nothing. No form of a browser's can forge a call: the key is in a header."""

Result = TypeVar("Result")
Body = TypeVar("Body", bound=BaseModel)
Held = TypeVar("Held", bound=tuple[Any, ...])
Connected = ASGIConnection[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Desk:
    """What a request works with."""

    database: Database
    vault: Vault
    clock: Clock
    settings: Settings
    sample_delivery: SampleDelivery
    trial_call: TrialCall
    in_force: Callable[[], Awaitable[None]]
    """Return once what is committed is in force, as far as this process can see and wait for it."""
    ledger_now: Callable[[Connection], datetime]
    """The moment on the clock that every process of this database goes by."""
    reconciliations: Reconciliations | None = None
    """None: this process has no accounts to compare."""
    turns: ReadTurns = field(default_factory=ReadTurns)
    under_way: set[str] = field(default_factory=set)
    """The repeatable calls that this process has not answered yet."""

    async def change(
        self, caller: Caller, work: Callable[[UnitOfWork], Result], *, if_match: str | None = None
    ) -> Result:
        """Run `work` in one transaction with the time of the change; return once it is committed and in force.

        `if_match`: the call's header of this name, for what honours it.
        """
        now = self.clock()
        result = await self.database.write(
            config_log.in_turn(lambda connection: work(self.unit(connection, caller, now, if_match)))
        )
        await self.in_force()
        return result

    async def post(
        self, request: "ManagementRequest", answer: type[Body], work: Callable[[UnitOfWork], Body], key: str | None
    ) -> Body:
        """Run `work` as `change` does; once only where the request has an `Idempotency-Key`. Raise RefusalError."""
        if key is None:
            return await self.change(request.auth, work)
        call_ = f"{request.method} {request.scope['path']}"
        call = repeats.read(self.vault, key, request.auth.key_prefix, call_, await request.body())
        if call.name in self.under_way:
            message = "Idempotency-Key: a call under this key has not ended yet; send it again in a moment"
            raise ConflictError(message, param="Idempotency-Key", code="idempotency_in_progress")
        self.under_way.add(call.name)
        try:
            return await self.change(request.auth, lambda unit: repeats.once(unit, self.vault, call, answer, work))
        finally:
            self.under_way.discard(call.name)

    def unit(
        self, connection: Connection, caller: Caller, now: datetime | None = None, if_match: str | None = None
    ) -> UnitOfWork:
        """Return what one call of the caller works with on this connection; `now` is read where it is not given."""
        return units.over(
            connection,
            now or self.clock(),
            workspace_id=caller.workspace_id,
            actor=caller.key_prefix,
            if_match=if_match,
        )

    async def look(self, caller: Caller, work: Callable[[Connection], Result]) -> Result:
        """Run `work` on one consistent view, in the turn of the caller's workspace. Raise RefusalError."""
        return await self.turns.take(caller.workspace_id, lambda: self.database.read(work, ReaderKind.MANAGEMENT))


AtDesk = NamedDependency[Desk]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT)]


IfMatch = Annotated[
    str | None,
    HeaderParameter(
        name="If-Match",
        description="The `ETag` of what was read: 412 where it was changed since (RFC 9110 13.1.1).",
    ),
]


IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="1 to 255 printable ASCII characters: sent again within 24 h, the call gets the answer it had.",
        schema_extra={"pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},  # for who reads it; `repeats.read` refuses the rest
    ),
]


class ManagementResponse(Response[Any]):
    """An answer with what its body says in headers too: `ETag` of one thing, `Link` of a list with more pages."""

    def to_asgi_response(self, app: Any, request: Request[Any, Any, Any], **given: Any) -> ASGIResponse:
        """Return the answer as it is sent."""
        if isinstance(self.content, Endpoint | Group | ApiKey):
            self.set_header("ETag", preconditions.entity_tag(self.content))
        elif isinstance(self.content, Page) and self.content.pagination.has_more:
            following = request.url.with_replacements(
                query=urlencode({**request.query_params, "cursor": self.content.pagination.cursor})
            )
            self.set_header("Link", f'<{following.path}?{following.query}>; rel="next"')
        if isinstance(self.content, CsvUsage):
            return ASGIResponse(body=self.content.body, media_type="text/csv", headers=given.get("headers"))
        return super().to_asgi_response(app, request, **given)


class CsvUsage(Page[UsageLine]):
    """Usage that is answered as CSV."""

    _text: str = PrivateAttr(default="")

    @classmethod
    def of(cls, text: str) -> "CsvUsage":
        """Return what is answered as this text."""
        made = cls(items=(), pagination=Pagination(has_more=False))
        made._text = text
        return made

    @property
    def body(self) -> bytes:
        """Return the text as it is sent."""
        return self._text.encode()


class ManagementRequest(Request[None, Caller, State]):
    """A request whose body is read by its contract, strictly: "5" is no number and 1 is no string."""

    async def body(self) -> bytes:
        """Return the whole body. Raise InvalidError where the client breaks off, HTTPException where it dawdles."""
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await super().body()
        except TimeoutError:
            raise HTTPException(status_code=408, detail=f"the body must arrive within {BODY_TIMEOUT_S} s") from None
        except InternalServerException:  # how the framework says it; nobody reads the answer, and it is no bug of ours
            raise InvalidError("the body ended before it was whole", code="invalid_body") from None

    async def json(self) -> Any:
        """Return the body as the contract that the route names. Raise InvalidError or UnsupportedError."""
        media_type, _ = self.content_type
        if media_type not in _READ_AS_JSON:
            raise UnsupportedError("content-type: must be application/json", param="content-type")
        field = self.route_handler.parsed_data_field
        if field is None:
            raise TypeError("the route names no body")
        return read(field.annotation, await self.body())


def read(contract: type[Body], body: bytes) -> Body:
    """Read a body strictly. Raise InvalidError, which names the field and what is allowed."""
    try:
        message = contract.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise error_texts.wrong_body(contract, error) from None
    if "\0" in "".join(_texts(message.model_dump(mode="json"))):
        raise InvalidError("strings must not hold the character U+0000", code="invalid_body")
    return message


def id_cursor(id_: str) -> str:
    """Return the cursor of a list that goes by ids."""
    return _written(id_.encode())


def after(cursor: str | None) -> str:
    """Return the id that a page begins behind; "" for the first page. Raise InvalidError."""
    if cursor is None:
        return ""
    try:
        id_ = _read_back(cursor).decode("ascii")
    except (binascii.Error, ValueError):
        id_ = ""
    if len(id_) != _ID_LENGTH or not id_.isalnum():
        raise foreign_cursor()
    return id_


def cursor_of(place: tuple[Any, ...]) -> str:
    """Return the cursor of a list whose pages hand on more than an id: the values of a named tuple."""
    return _written(msgspec.json.encode(place))


def read_cursor(cursor: str, shape: type[Held]) -> Held:
    """Return what `cursor_of` was given, of the same shape; its values may still be anything. Raise InvalidError."""
    try:
        held: Held = msgspec.json.decode(_read_back(cursor), type=shape)
        for value in held:
            if isinstance(value, datetime):
                value.astimezone(UTC)
    except (binascii.Error, ValueError, OverflowError):  # msgspec's errors are ValueErrors
        raise foreign_cursor() from None
    naive = any(isinstance(value, datetime) and value.tzinfo is None for value in held)
    if naive or any(isinstance(value, str) and "\0" in value for value in held):
        raise foreign_cursor()
    return held


def foreign_cursor() -> InvalidError:
    """Return the refusal of a cursor that no page of the list gave."""
    return InvalidError("cursor: must be one that a page of this list gave", param="cursor", code="invalid_cursor")


def _written(place: bytes) -> str:
    return base64.urlsafe_b64encode(place).decode().rstrip("=")


def _read_back(cursor: str) -> bytes:
    return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)


def encode(message: BaseModel) -> Any:
    """Return an answer as JSON values. Every answer sets all its fields, so that only a target's are left out."""
    if isinstance(message, EncodedPage):
        return message.encoded
    return message.model_dump(mode="json", exclude_unset=True)


def refuse_nul(connection: Connected) -> None:
    """Refuse a path or query with U+0000, which no database takes. Raise InvalidError."""
    if "\0" in "".join([connection.scope["path"], *(value for _, value in connection.query_params.multi_items())]):
        raise InvalidError("the path and the query must not hold the character U+0000", code="invalid_query")


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
