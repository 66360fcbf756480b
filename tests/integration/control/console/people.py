"""People at the console, as browsers are: they keep cookies, send the hidden fields of forms, and run no script."""

import html
import re
from collections.abc import Mapping

import httpx
from litestar import Litestar

from control import app as control_app
from control.flow import sessions as flow
from control.reconciliations import Reconciliations
from control.store.sessions import SqlSessions
from runtime import clock
from runtime.database.engines import Database
from runtime.settings import Settings
from tests.integration.control.helpers import VAULT, at_once

BASE = "https://gateway.test"
_TOKEN = re.compile(r'name="form_token" value="([^"]+)"')


def application(database: Database, reconciliations: Reconciliations | None = None) -> Litestar:
    settings = Settings(allow_private_receivers=True)
    desk = control_app.desk(database, VAULT, clock.steady(), settings, at_once, reconciliations=reconciliations)
    handlers = control_app.handlers(desk)
    return Litestar(
        [*handlers],
        openapi_config=control_app.openapi_config("0.1.0"),
        exception_handlers=control_app.UNROUTED,
        logging_config=None,
    )


class Person:
    """One browser."""

    def __init__(self, app: Litestar, base: str = BASE) -> None:
        transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
        self.client = httpx.AsyncClient(transport=transport, base_url=base, follow_redirects=False)
        self.form_token = ""

    async def get(self, path: str, **headers: str) -> httpx.Response:
        answer = await self.client.get(path, headers=headers)
        found = _TOKEN.search(answer.text)
        self.form_token = found.group(1) if found else self.form_token
        return answer

    async def post(self, path: str, fields: Mapping[str, str] | None = None, **headers: str) -> httpx.Response:
        """Post a form as the last page's would be: with its token."""
        return await self.client.post(path, data={"form_token": self.form_token, **(fields or {})}, headers=headers)

    async def sign_in(self, key: str, next_: str = "") -> httpx.Response:
        await self.get("/console/sign-in")
        answer = await self.post("/console/sign-in", {"key": key, "next": next_})
        if answer.status_code == 303:
            await self.get("/console/webhook")
        return answer

    async def follow_link(self, token: str) -> httpx.Response:
        await self.get(f"/console/link?t={token}")
        return await self.post("/console/link", {"t": token})


def link(database: Database) -> str:
    """Return the token of a new link of the operator's, as the command makes one."""
    now = clock.steady()()
    return database.write_now(lambda connection: flow.make_link(SqlSessions(connection), now))


def said(answer: httpx.Response) -> str:
    """Return what a page says, without its tags and with its characters as they are read."""
    text = re.sub(r"<[^>]+>", " ", answer.text)
    return re.sub(r"\s+", " ", html.unescape(text))
