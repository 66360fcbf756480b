"""Pages of the events: the newest requests, billed or not, filtered by what the address says, and one event."""

from datetime import timedelta

from litestar import Controller, Response, get
from litestar.params import FromPath, FromQuery
from sqlalchemy import Connection

from control.api import common
from control.api.common import AtDesk, ManagementRequest
from control.console import forms, live
from control.console.live import LivePlace, Shown
from control.console.sign_in import AtPages
from control.core.refusals import ForbiddenError, NotFoundError
from metering.store import events as ledger
from metering.store.pages import EventQuery, Order, PageStart
from schemas.usage import UsageEvent

ROWS = 50
_SHOWN = timedelta(days=7)


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
        shown: FromQuery[Shown] = Shown.ALL,
        cursor: FromQuery[str] = "",
    ) -> Response[str]:
        """List the newest requests of a window, a week where none is asked for."""
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
        after = common.read_cursor(cursor, LivePlace) if cursor else None
        found = await desk.look(request.auth, lambda connection: live.rows(connection, window, after, ROWS + 1, shown))
        part = "events_found.html" if request.headers.get("hx-target") == "events" else "events.html"
        return templates.page(
            request,
            part,
            rows=found[:ROWS],
            following=common.cursor_of(live.place(found[:ROWS], after)) if len(found) > ROWS else None,
            fields=asked,
            shown=shown,
            choices=list(Shown),
            looked_at=live.LOOKED_AT,
            is_live=not cursor and not asked.get("to"),
        )

    @get("/{event_key:str}")
    async def one(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, event_key: FromPath[str]
    ) -> Response[str]:
        """Show one event: what was asked of what, what was counted and by whom."""
        caller = request.auth
        found = await desk.look(request.auth, lambda connection: _own(connection, caller.workspace_id, event_key))
        return templates.page(request, "event.html", event=found)


def _own(connection: Connection, workspace_id: str, event_key: str) -> UsageEvent:
    found = ledger.find(connection, event_key)
    if found is None:
        raise NotFoundError("event: the ledger has none of this key", code="not_found")
    if found.workspace_id != workspace_id:
        raise ForbiddenError("event: belongs to another workspace", code="other_workspace")
    return found
