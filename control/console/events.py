"""Pages of the events: the ledger's newest, filtered by what the address says, and one of them."""

from datetime import datetime, timedelta
from typing import NamedTuple

from litestar import Controller, Response, get
from litestar.params import FromPath, FromQuery
from sqlalchemy import Connection

from control.api import common
from control.api.common import AtDesk, ManagementRequest
from control.console import forms, pages
from control.console.sign_in import AtPages
from control.core.refusals import ForbiddenError, NotFoundError
from metering.store import events as ledger
from metering.store.pages import EventQuery, LedgerEntry, Order, PageStart, newest
from schemas.usage import UsageEvent

ROWS = 50
_SHOWN = timedelta(days=7)


class _PageStart(NamedTuple):
    """Where a page ended."""

    moment: datetime
    key: str


class EventPageController(Controller):
    """``/console/events``."""

    path = "/events"

    @get()
    async def show(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        templates: AtPages,
        *,
        customer: FromQuery[str] = "",
        key: FromQuery[str] = "",
        cursor: FromQuery[str] = "",
    ) -> Response[str]:
        """List the newest events of a window, a week where none is asked for."""
        asked = dict(request.query_params)
        now = desk.clock()
        start, end = (
            forms.moment(asked, "from") or now - _SHOWN,
            forms.moment(asked, "to") or now + timedelta(minutes=1),
        )
        window = EventQuery(
            request.auth.workspace_id,
            Order.TIMESTAMP,
            PageStart(start, ""),
            end,
            key.strip() or None,
            customer.strip() or None,
        )
        before = PageStart(*common.read_cursor(cursor, _PageStart)) if cursor else None
        found = await desk.look(request.auth, lambda connection: newest(connection, window, before, ROWS + 1))
        shown, following = pages.cut(found, ROWS, _place)
        live = not cursor and not asked.get("to")
        part = "events_found.html" if request.headers.get("hx-target") == "events" else "events.html"
        return templates.page(
            request,
            part,
            entries=shown,
            following=following,
            fields=asked,
            live=live,
        )

    @get("/{event_key:str}")
    async def one(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, event_key: FromPath[str]
    ) -> Response[str]:
        """Show one event: what was asked of what, what was counted and by whom."""
        caller = request.auth
        found = await desk.look(request.auth, lambda connection: _own(connection, caller.workspace_id, event_key))
        return templates.page(request, "event.html", event=found)


def _place(entry: LedgerEntry) -> str:
    return common.cursor_of(_PageStart(entry.event.timestamp, entry.event.idempotency_key))


def _own(connection: Connection, workspace_id: str, event_key: str) -> UsageEvent:
    found = ledger.find(connection, event_key)
    if found is None:
        raise NotFoundError("event: the ledger has none of this key", code="not_found")
    if found.workspace_id != workspace_id:
        raise ForbiddenError("event: belongs to another workspace", code="other_workspace")
    return found
