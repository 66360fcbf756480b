"""Guards the console: reads the cookie, refuses forged requests, and says what a person may do.

Never lets the cookie work beyond the console: its path is /console.
"""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from litestar.datastructures import Cookie
from litestar.handlers import BaseRouteHandler
from litestar.types import Guard
from sqlalchemy import Connection

from control.api import common
from control.api.common import Desk, ManagementRequest
from control.auth import Caller
from control.core.records import Scope, Session
from control.core.refusals import ForbiddenError, InvalidError, UnauthorizedError, UnsupportedError
from control.flow import sessions as flow
from control.store.audit import OPERATOR
from control.store.sessions import SqlSessions
from control.store.workspaces import SqlCredentials, SqlWorkspaces
from domain import hosts
from runtime.database.readers import ReaderKind

COOKIE = "tollgate_console"
SIGN_IN_COOKIE = "tollgate_console_sign_in"
"""Carried by the sign-in form alone, before there is a session; a session's token is always a new one."""

OPEN = {"open": True}
"""The handler option of what needs no session."""

OPERATORS = {"operator": True}
"""The handler option of what is the operator's alone; everything else is a lab's alone."""

FORM_TOKEN = "form_token"
_MAX_FIELDS = 20_000
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True)
class SignedIn(Caller):
    """A person who is signed in. The operator has no workspace ("")."""

    workspace: str
    """The workspace's name; "" for the operator."""
    scope: Scope
    form_token: str
    sha256: str
    """Of the session's token: what ends it."""

    @property
    def is_operator(self) -> bool:
        """Tell whether this is the operator's session."""
        return not self.workspace_id

    @property
    def may_change(self) -> bool:
        """Tell whether the management key has the scope `manage`."""
        return self.scope is Scope.MANAGE


def guard(desk: Desk) -> Guard:
    """Return the guard of every page and action."""

    async def sit(connection: common.Connected, handler: BaseRouteHandler) -> None:
        common.refuse_nul(connection)
        posted = connection.scope.get("method") not in {"GET", "HEAD"}
        if posted:
            _refuse_other_sites(connection)
        token = connection.cookies.get(COOKIE)
        form_of = connection.cookies.get(SIGN_IN_COOKIE)
        if not handler.opt.get("open"):
            person = await _signed_in(desk, token, host(connection))
            connection.scope["auth"] = person
            form_of = token
            _check_side(person, handler)
            if posted and not person.may_change and not handler.opt.get("any_scope"):
                raise ForbiddenError("this key has the scope 'read' and may only look", code="insufficient_scope")
        if posted and isinstance(connection, ManagementRequest):
            given = (await form(connection)).get(FORM_TOKEN)
            if form_of is None:
                raise ForbiddenError(
                    "your browser sent no cookie; open the console by https, or on this machine itself"
                )
            if given != flow.form_token(form_of):
                raise ForbiddenError("this form is not from your session; open the page again and repeat it")

    return sit


async def form(request: ManagementRequest) -> dict[str, str]:
    """Return the fields of a posted form; of a field given twice, the last. Raise UnsupportedError, InvalidError."""
    if request.content_type[0] != "application/x-www-form-urlencoded":
        raise UnsupportedError("content-type: must be application/x-www-form-urlencoded", param="content-type")
    try:
        text = (await request.body()).decode("ascii")
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"))
    except ValueError:
        raise InvalidError("the form cannot be read") from None
    if any("\0" in value or "\0" in name for name, value in fields.items()):
        raise InvalidError("a form must not hold the character U+0000")
    return fields


def cookie(connection: common.Connected, token: str, name: str = COOKIE) -> Cookie:
    """Return the cookie of a session; without `Secure` only where the host is this machine itself."""
    host = urlsplit("//" + connection.headers.get("host", "")).hostname
    return Cookie(
        key=name, value=token, path="/console", httponly=True, samesite="strict", secure=host not in _LOOPBACK
    )


def no_cookie(name: str = COOKIE) -> Cookie:
    """Return what takes the cookie away."""
    return Cookie(key=name, value="", path="/console", httponly=True, samesite="strict", max_age=0)


def own_path(path: str | None) -> str:
    """Return where to go after sign-in: a path of the console, whatever was asked for."""
    plain = path is not None and path.isascii() and path.isprintable() and not set(path) & set("\\ ")
    inside = path is not None and (path == "/console" or path.startswith(("/console/", "/console?")))
    return path if path is not None and plain and inside else "/console"


def _refuse_other_sites(connection: common.Connected) -> None:
    """Refuse what a browser sends on another site's behalf, before anything is read of it."""
    site, origin = connection.headers.get("sec-fetch-site"), connection.headers.get("origin")
    foreign = site not in {None, "same-origin", "none"}
    if origin is not None and urlsplit(origin).netloc.lower() != connection.headers.get("host", "").lower():
        foreign = True
    if foreign:
        raise ForbiddenError("this request comes from another site", code="cross_site")


def host(connection: common.Connected) -> str:
    """Return the name under which the console was asked for."""
    return hosts.named(connection.headers.get("host", ""))


def origin(connection: common.Connected) -> str:
    """Return the scheme and host under which the console was asked for, as a command line names a server."""
    asked = connection.headers.get("host", "")
    forwarded = connection.headers.get("origin", "").partition("://")[0]
    return f"{forwarded or connection.url.scheme}://{asked}"


async def _signed_in(desk: Desk, token: str | None, under: str) -> SignedIn:
    if not token:
        raise UnauthorizedError("sign in first")
    now = desk.clock()

    def find(connection: Connection) -> tuple[Session, SignedIn] | None:
        session = flow.alive(SqlSessions(connection), token, now)
        owner = SqlCredentials(connection).host_owner(under)  # on a lab's own host its console alone is served
        if session is None or owner not in (None, session.workspace_id):
            return None
        return _of(connection, session, token)

    found = await desk.database.read(find, ReaderKind.SIGN_IN)
    if found is None:
        raise UnauthorizedError("your session has ended; sign in again")
    session, person = found
    if flow.is_to_be_noted(session, now):
        await desk.database.write(lambda connection: SqlSessions(connection).touch(session.sha256, now))
    return person


def _of(connection: Connection, session: Session, token: str) -> tuple[Session, SignedIn] | None:
    form_token = flow.form_token(token)
    if session.workspace_id is None:
        return session, SignedIn("", OPERATOR, "", Scope.MANAGE, form_token, session.sha256)
    key = flow.key_of(SqlCredentials(connection), session)
    workspace = SqlWorkspaces(connection).find(session.workspace_id)
    if key is None or workspace is None:
        return None
    return session, SignedIn(workspace.id, key.prefix, workspace.name, key.scope, form_token, session.sha256)


def _check_side(person: SignedIn, handler: BaseRouteHandler) -> None:
    if person.is_operator != bool(handler.opt.get("operator")) and not handler.opt.get("both"):
        whose = "a lab's" if person.is_operator else "the operator's"
        raise ForbiddenError(f"this page is {whose}")
