"""The operator's pages: every workspace with its state and what waits, what failed lately, and the settings in force.

Never shows a secret: of one it says whether it is set.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from litestar import Controller, Response, get
from litestar.params import FromQuery
from pydantic import SecretStr
from sqlalchemy import Connection

from control.api.common import AtDesk, ManagementRequest
from control.console import guard, pages
from control.console.sign_in import AtPages
from control.store import requests
from control.store.workspaces import SqlWorkspaces
from metering.core.sums import DailyIncrement
from metering.store import consumption
from metering.store.consumption import UsageQuery
from runtime import ids, version
from runtime.settings import Settings, variable
from schemas.config import WorkspaceRecord
from webhooks.store import pages as deliveries
from webhooks.store.pages import Undelivered

_SHOWN = 20
_NOTHING = DailyIncrement()
_USER_INFO = re.compile(r"(?<=://)[^/@]*@")


@dataclass(frozen=True, slots=True)
class WorkspaceRow:
    """A workspace in the operator's list."""

    workspace: WorkspaceRecord
    org_prefixes: Sequence[str]
    today: DailyIncrement
    undelivered: Undelivered


@dataclass(frozen=True, slots=True)
class SettingRow:
    """A setting in force."""

    variable: str
    value: str
    is_default: bool


class OperatorController(Controller):
    """``/console/operator``."""

    path = "/operator"
    opt = guard.OPERATORS

    @get()
    async def show(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[str]:
        """Show every workspace by name, and what was refused or failed in the last hour."""
        now = desk.clock()

        def find(connection: Connection) -> dict[str, Any]:
            failed = requests.newest(connection, None, now - timedelta(hours=1), _SHOWN)
            return {"rows": rows(connection, now.date()), "failed": failed}

        return templates.page(request, "operator.html", now=now, **await desk.look(request.auth, find))

    @get("/settings")
    async def settings(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[str]:
        """Show the version and the settings in force of the process that answers."""
        shown = in_force(desk.settings)
        return templates.page(request, "settings.html", version=version.current(), settings=shown)

    @get("/search")
    async def search(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, q: FromQuery[str] = ""
    ) -> Response[None] | Response[str]:
        """Lead to the request or the workspace that the text names."""
        text = q.strip()[:255]

        def find(connection: Connection) -> str | None:
            if ids.moment_of(text) is not None and requests.story(connection, text.lower()) is not None:
                return pages.address("requests", text.lower())
            workspace = SqlWorkspaces(connection).find(text)
            return None if workspace is None else pages.address("operator") + f"#{workspace.id}"

        found = await desk.look(request.auth, find)
        return templates.page(request, "operator_search.html", q=text) if found is None else pages.moved(found)


def rows(connection: Connection, today: date) -> list[WorkspaceRow]:
    """Return every workspace, by name."""
    with consumption.consumed(connection, UsageQuery(today, today)) as found:
        figures = {row.place[0]: row.figures for row in found}
    waiting, store = deliveries.undelivered_of_all(connection), SqlWorkspaces(connection)
    made = [
        WorkspaceRow(
            workspace=one,
            org_prefixes=store.org_prefixes(one.id),
            today=figures.get(one.id, _NOTHING),
            undelivered=waiting.get(one.id, Undelivered(0, 0, None)),
        )
        for one in store.every()
    ]
    return sorted(made, key=lambda row: row.workspace.name)


def in_force(settings: Settings) -> list[SettingRow]:
    """Return all settings, those that differ from their default first; of a secret whether it is set."""
    found = [
        SettingRow(variable(name), _shown(getattr(settings, name)), getattr(settings, name) == field.default)
        for name, field in Settings.model_fields.items()
    ]
    return sorted(found, key=lambda row: row.is_default)


def _shown(value: object) -> str:
    if value is None:
        return "–"  # noqa: RUF001 (the dash of tables)
    if isinstance(value, SecretStr):
        return "set, not shown"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _USER_INFO.sub("", str(value))
