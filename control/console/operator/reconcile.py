"""The page that compares the accounts of a day, as `tollgate reconcile` does, in the background."""

from datetime import date
from typing import Any

from litestar import Controller, Response, get, post
from sqlalchemy import Connection

from control.api.common import AtDesk, Desk, ManagementRequest
from control.console import guard, pages
from control.console.sign_in import AtPages
from control.core.refusals import InvalidError, RefusalError
from control.reconciliations import ReconcileRequest
from control.store.monitoring import reconciliations as store

_MOST_PROXIES = 64


class ReconcileController(Controller):
    """``/console/operator/reconcile``."""

    path = "/operator/reconcile"
    opt = guard.OPERATORS

    @get()
    async def show(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[str]:
        """Show the reconciliations of the last week, the newest whole."""
        part = "reconciled.html" if request.headers.get("hx-target") == "reconciled" else "reconcile.html"
        return templates.page(request, part, **await _shown(request, desk))

    @post(status_code=200)
    async def begin(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[Any]:
        """Begin one."""
        fields = await guard.form(request)
        try:
            if desk.reconciliations is None:
                raise InvalidError("this process cannot reconcile; type `tollgate reconcile`")
            day, proxies = _day(fields.get("day", "")), fields.get("proxies", "").split()
            if len(proxies) > _MOST_PROXIES:
                raise InvalidError(f"proxies: at most {_MOST_PROXIES}", param="proxies")
            if day > desk.clock().date():
                raise InvalidError("day: lies in the future", param="day")
            await desk.reconciliations.ask(ReconcileRequest(day, proxies))
        except RefusalError as error:
            return templates.refused(request, "reconcile.html", error, **await _shown(request, desk, fields))
        return pages.moved(pages.address("operator", "reconcile"))


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise InvalidError("day: must be a UTC day, as 2026-01-31", param="day") from None


async def _shown(request: ManagementRequest, desk: Desk, fields: dict[str, str] | None = None) -> dict[str, Any]:
    now = desk.clock()

    def find(connection: Connection) -> list[store.StoredReconciliation]:
        return list(store.newest(connection, now))

    found = await desk.look(request.auth, find)
    return {
        "found": found,
        "now": now,
        "under_way": any(one.is_under_way(now) for one in found),
        "is_apart": desk.settings.kafka_bootstrap is not None,
        "can": desk.reconciliations is not None,
        "fields": fields or {"day": now.date().isoformat()},
    }
