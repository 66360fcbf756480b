"""Routes of the ledger's events (contract 2.5).

Never shows what was recorded within the hold-back: an earlier transaction might still be under way.
"""

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, NamedTuple

from litestar import Controller, get
from litestar.params import FromQuery, QueryParameter
from sqlalchemy import Connection

from control.api import common, errors, paging
from control.api.common import AtDesk, Desk, Limit, ManagementRequest
from control.core.refusals import InvalidError
from metering.store import ledger_clock, pages
from metering.store.pages import EventQuery, LedgerEntry, Order, PageStart
from schemas.api import Page
from schemas.billing import LedgerEvent
from schemas.usage import Kind

_AS_TIME = {"format": "date-time"}
Start = Annotated[
    str | None,
    QueryParameter(
        description="RFC 3339, with a zone; inclusive. Required without `cursor`, which holds it else.",
        schema_extra=_AS_TIME,
    ),
]
End = Annotated[
    str | None,
    QueryParameter(description="RFC 3339, with a zone; exclusive. Without it: to now.", schema_extra=_AS_TIME),
]


class _Cursor(NamedTuple):
    """What a page hands to the next: where it ended, and which window it belongs to."""

    order: Order
    moment: datetime
    key: str
    end: datetime | None
    api_key_prefix: str | None
    external_entity_id: str | None
    start: datetime | None = None
    """Where the window began; None in a cursor that was given before cursors said so."""
    request_id: str | None = None


class EventController(Controller):
    """``/v1/gateway/events``."""

    path = "/gateway/events"
    tags = ("Billing",)

    @get(operation_id="list_events", summary="List billing events", responses=errors.READ_ERRORS)
    async def list_page(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        *,
        start_time: Start = None,
        end_time: End = None,
        api_key_prefix: FromQuery[str | None] = None,
        external_entity_id: FromQuery[str | None] = None,
        request_id: FromQuery[str | None] = None,
        order: FromQuery[Order | None] = None,
        limit: Limit = common.DEFAULT_LIMIT,
        cursor: FromQuery[str | None] = None,
    ) -> Page[LedgerEvent]:
        """List the events of a window, `start_time` included and `end_time` not; the newest are held back.

        `order=timestamp` goes by admission; an event that comes late may lie behind a page that was read.
        `order=recorded` goes by the ledger's own clock, which never runs behind: its last page has a cursor too, and
        who goes on from there misses nothing.
        """
        start, end = _moment("start_time", start_time), _moment("end_time", end_time)
        filters = (api_key_prefix, external_entity_id)
        asked = _Cursor(order or Order.TIMESTAMP, start or _NEVER, "", end, *filters, start, request_id)
        if cursor is not None:
            asked = _resume(cursor, asked, order)
        elif start is None:
            raise InvalidError("start_time: is required without a cursor", param="start_time", code="invalid_query")
        if asked.start is not None and asked.end is not None and asked.end < asked.start:
            raise InvalidError("end_time: must not be before start_time", param="end_time", code="invalid_query")
        workspace_id = request.auth.workspace_id

        def find(connection: Connection) -> Page[LedgerEvent]:
            found = _read(connection, desk, workspace_id, asked, limit + 1)
            return paging.filled(found, limit, body, partial(_behind, asked), at_end=partial(_at_end, asked))

        return await desk.look(request.auth, find)


_NEVER = datetime.fromtimestamp(0, UTC)


def _read(connection: Connection, desk: Desk, workspace_id: str, asked: _Cursor, limit: int) -> list[LedgerEntry]:
    now = ledger_clock.now(connection, desk.ledger_now(connection))
    window = EventQuery(
        workspace_id,
        asked.order,
        PageStart(asked.moment, asked.key),
        asked.end or now,
        asked.api_key_prefix,
        asked.external_entity_id,
        asked.request_id,
    )
    return pages.page(connection, window, now - timedelta(seconds=desk.settings.events_hold_back_s), limit)


def _behind(asked: _Cursor, last: LedgerEntry) -> str:
    place = pages.place_of(last, asked.order)
    return common.cursor_of(asked._replace(moment=place.moment, key=place.key))


def _at_end(asked: _Cursor, last: LedgerEntry | None) -> str | None:
    """Return what a follower resumes from; by admission there is nothing to resume."""
    if asked.order is Order.TIMESTAMP:
        return None
    return common.cursor_of(asked) if last is None else _behind(asked, last)


def _resume(cursor: str, asked: _Cursor, order: Order | None) -> _Cursor:
    """Return the window that the cursor belongs to; what the query repeats of it must be the same."""
    held = common.read_cursor(cursor, _Cursor)
    repeated = {
        "start_time": (asked.start, held.start or asked.start),
        "order": (order, held.order),
        "api_key_prefix": (asked.api_key_prefix, held.api_key_prefix),
        "external_entity_id": (asked.external_entity_id, held.external_entity_id),
        "request_id": (asked.request_id, held.request_id),
    }
    for name, (given, own) in repeated.items():
        if given is not None and given != own:
            raise InvalidError(f"{name}: is not the one that the cursor belongs to", param=name, code="invalid_cursor")
    return held._replace(end=asked.end or held.end)


def _moment(name: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # said below
    raise InvalidError(f"{name}: must be a time with a zone, as 2026-01-31T12:00:00Z", param=name, code="invalid_query")


def body(entry: LedgerEntry) -> LedgerEvent:
    """Return an event as it is answered."""
    event = entry.event
    fields = {name: getattr(event, name) for name in LedgerEvent.model_fields if name in type(event).model_fields}
    if event.kind is not Kind.CORRECTION:
        fields = {name: value for name, value in fields.items() if name not in {"kind", "corrects", "reason"}}
    return LedgerEvent(**fields, external_customer_id=event.external_entity_id, recorded_at=entry.recorded_at)
