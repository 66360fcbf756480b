"""Sign-in with a management key, the operator's link, and sign-out.

Never signs the operator in with a lab's key, nor a lab with the operator's link.
"""

import asyncio
import secrets
from collections import deque
from datetime import datetime, timedelta
from typing import Annotated

from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromQuery, QueryParameter

from control import auth, credentials
from control.api.common import AtDesk, Desk, ManagementRequest
from control.console import guard, pages
from control.console.pages import Pages
from control.core.refusals import RefusalError, UnauthorizedError
from control.flow import sessions as flow
from control.store.sessions import SqlSessions
from control.store.workspaces import SqlCredentials
from runtime.database.readers import ReaderKind

_PERIOD = timedelta(minutes=1)
_WRONG_OF_A_PREFIX = 5
_WRONG_IN_ALL = 100
_AT_ONCE = 4


class Attempts:
    """Bounds the attempts to sign in; one object for a process.

    A key has 238 random bits, so the bound is for load and noise, not against guessing: after many wrong attempts the
    right key still signs in, and nobody can lock a lab out by sending its key's public prefix with nonsense.
    """

    def __init__(self) -> None:
        self._wrong: deque[tuple[datetime, str]] = deque(maxlen=_WRONG_IN_ALL)
        self.one_of_few = asyncio.Semaphore(_AT_ONCE)

    def too_many(self, prefix: str, now: datetime) -> bool:
        """Note a wrong attempt; tell whether there were too many of this prefix, or in all, in a minute."""
        while self._wrong and now - self._wrong[0][0] > _PERIOD:
            self._wrong.popleft()
        full = len(self._wrong) >= _WRONG_IN_ALL
        self._wrong.append((now, prefix))
        return full or sum(known == prefix for _, known in self._wrong) > _WRONG_OF_A_PREFIX


ComeBack = Annotated[str | None, QueryParameter(name="next")]
AtPages = NamedDependency[Pages]
AtAttempts = NamedDependency[Attempts]


class SignInController(Controller):
    """``/console/sign-in``, ``/console/link`` and ``/console/sign-out``."""

    @get("/sign-in", opt=guard.OPEN)
    async def show(self, request: ManagementRequest, templates: AtPages, come_back: ComeBack = None) -> Response[str]:
        """Show the form; it carries a token of its own, whose other half is in a cookie."""
        return _form(request, templates, "sign_in.html", next=guard.own_path(come_back))

    @post("/sign-in", opt=guard.OPEN, status_code=200)
    async def sign_in(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, attempts: AtAttempts
    ) -> Response[str] | Response[None]:
        """Begin a session, always with a new token; what cookie was sent means nothing."""
        form = await guard.form(request)
        key, now = form.get("key", "").strip(), desk.clock()
        come_back = guard.own_path(form.get("next"))
        try:
            async with attempts.one_of_few:
                caller = await desk.database.read(
                    lambda view: auth.identify(SqlCredentials(view), f"Api-Key {key}", "GET", guard.host(request)),
                    ReaderKind.SIGN_IN,
                )
        except RefusalError as error:
            many = isinstance(error, UnauthorizedError) and attempts.too_many(credentials.prefix(key), now)
            message = "too many attempts; wait a minute" if many else error.message.removeprefix("Authorization: ")
            again = _form(
                request, templates, "sign_in.html", next=come_back, problem=message, status=429 if many else 400
            )
            if many:
                again.headers["retry-after"] = "60"
            return again
        token = await desk.database.write(
            lambda connection: flow.begin(
                SqlSessions(connection), now, workspace_id=caller.workspace_id, key_prefix=caller.key_prefix
            )
        )
        return await _entered(request, desk, token, come_back)

    @get("/link", opt=guard.OPEN)
    async def show_link(self, request: ManagementRequest, templates: AtPages, t: FromQuery[str] = "") -> Response[str]:
        """Show a button: a link that is only looked at, by a chat's preview for one, is not used up."""
        return _form(request, templates, "link.html", t=t)

    @post("/link", opt=guard.OPEN, status_code=200)
    async def use_link(self, request: ManagementRequest, desk: AtDesk) -> Response[None]:
        """Begin the operator's session and use the link up."""
        form = await guard.form(request)
        now, given = desk.clock(), form.get("t", "")
        token = await desk.database.write(lambda connection: flow.use_link(SqlSessions(connection), given, now))
        return await _entered(request, desk, token, "/console")

    @post("/sign-out", opt={"both": True, "any_scope": True}, status_code=200)
    async def sign_out(self, request: ManagementRequest, desk: AtDesk) -> Response[None]:
        """End the session."""
        person = request.scope["auth"]
        await desk.database.write(lambda connection: SqlSessions(connection).end(person.sha256))
        gone = pages.moved("/console/sign-in")
        gone.cookies = [guard.no_cookie()]
        return gone


def _form(
    request: ManagementRequest, shown: Pages, template: str, *, status: int = 200, **context: object
) -> Response[str]:
    token = request.cookies.get(guard.SIGN_IN_COOKIE) or secrets.token_urlsafe(32)
    page = shown.page(request, template, status=status, form_token=flow.form_token(token), **context)
    page.cookies = [guard.cookie(request, token, guard.SIGN_IN_COOKIE)]
    return page


async def _entered(request: ManagementRequest, desk: Desk, token: str, path: str) -> Response[None]:
    before = request.cookies.get(guard.COOKIE)
    if before:  # who signs in anew leaves no session behind
        await desk.database.write(lambda connection: SqlSessions(connection).end(flow.digest(before)))
    answer = pages.moved(path)
    answer.cookies = [guard.cookie(request, token), guard.no_cookie(guard.SIGN_IN_COOKIE)]
    return answer
