"""Routes of deliveries (contract 2.5).

Many are put back in several transactions.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import NamedTuple

from litestar import Controller, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import Connection

from control.api import common, errors, paging
from control.api.common import AtDesk, Desk, Limit, ManagementRequest
from control.auth import Caller
from control.core.refusals import InvalidError
from control.flow import deliveries as flow
from schemas.api import Page
from schemas.billing import AnsweredAttempt, Delivery, DeliveryStatus, RedriveDeliveries, Redriven, WholeDelivery
from webhooks.store import pages, redrive
from webhooks.store.pages import DeliveryPageStart, DeliveryQuery, Listed

_READ_AT_ONCE = 100

_ALL = RedriveDeliveries()
"""What no body at all asks for."""


class _Cursor(NamedTuple):
    """What a page hands to the next: where it ended, and which list it belongs to."""

    moment: datetime
    id: str
    status: DeliveryStatus | None


class DeliveryController(Controller):
    """``/v1/gateway/deliveries``."""

    path = "/gateway/deliveries"
    tags = ("Billing",)

    @get(operation_id="list_deliveries", summary="List deliveries", responses=errors.READ_ERRORS)
    async def list_page(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        status: FromQuery[DeliveryStatus | None] = None,
        limit: Limit = common.DEFAULT_LIMIT,
        cursor: FromQuery[str | None] = None,
    ) -> Page[Delivery]:
        """List the workspace's deliveries, newest first.

        With `status=delivered`, `dead` or `not_due` by when they were delivered, given up or put aside; else by when
        they were made.
        """
        after = None if cursor is None else _resume(cursor, status)
        if after is not None:
            status = after.status
        window = DeliveryQuery(request.auth.workspace_id, status)
        place = None if after is None else DeliveryPageStart(after.moment, after.id)

        def find(connection: Connection) -> Page[Delivery]:
            found = _walked(connection, window, place, limit + 1)
            return paging.filled(found, limit, body, lambda listed: _cursor(window, listed))

        return await desk.look(request.auth, find)

    @get("/{delivery_id:str}", operation_id="get_delivery", summary="Get a delivery", responses=errors.READ_ERRORS)
    async def get_one(self, request: ManagementRequest, desk: AtDesk, delivery_id: FromPath[str]) -> WholeDelivery:
        """Get one delivery with the body that every attempt sends and what each attempt was answered."""
        caller = request.auth

        return await desk.look(caller, lambda connection: whole(connection, caller.workspace_id, delivery_id))

    @post(
        "/{delivery_id:str}/redeliver",
        status_code=200,
        operation_id="redeliver_delivery",
        summary="Deliver one again",
        responses=errors.READ_ERRORS,
    )
    async def redeliver(self, request: ManagementRequest, desk: AtDesk, delivery_id: FromPath[str]) -> Delivery:
        """Bring one delivery's next attempt forward to now, whatever became of it; a held receiver's with its probe."""
        caller, now = request.auth, desk.clock()

        def put_back(connection: Connection) -> Listed | None:
            owner, put_back = pages.owner(connection, delivery_id), partial(redrive.redeliver, connection)
            flow.redeliver(desk.unit(connection, caller, now), delivery_id, owner, put_back)
            return pages.find(connection, delivery_id)

        found = await desk.database.write(put_back)
        if found is None:
            raise RuntimeError("a delivery that was put back is gone within the same transaction")
        return body(found)

    @post(
        "/redrive",
        status_code=200,
        operation_id="redrive_deliveries",
        summary="Deliver again what has failed",
        responses=errors.WRITE_ERRORS,
    )
    async def redrive(
        self, request: ManagementRequest, desk: AtDesk, data: JSONBody[RedriveDeliveries] = _ALL
    ) -> Redriven:
        """Put dead letters and `not_due` deliveries back to `pending`, at a bounded rate.

        `from` and `to` say when they were given up or put aside. Safe to repeat where the answer was lost.
        """
        return await redriven(desk, request.auth, data)


async def redriven(desk: Desk, caller: Caller, data: RedriveDeliveries) -> Redriven:
    """Put back what of the caller's deliveries ended in a window, a part in each transaction. Raise InvalidError."""
    now = desk.clock()

    def step(connection: Connection, under_way: flow.Redrive) -> flow.Redrive:
        put_back = partial(redrive.redrive, connection, per_s=desk.settings.webhook_redrive_per_s)
        return flow.step(desk.unit(connection, caller), under_way, put_back)

    before, under_way = None, flow.plan(caller.workspace_id, data.from_, data.to, now)
    while under_way != before:
        before = under_way
        under_way = await desk.database.write(partial(step, under_way=under_way))
    return Redriven(count=under_way.count)


def whole(connection: Connection, workspace_id: str, delivery_id: str) -> WholeDelivery:
    """Return one of the workspace's deliveries with its body and answers. Raise NotFoundError or ForbiddenError."""
    flow.check_owner(workspace_id, pages.owner(connection, delivery_id))
    found = pages.whole(connection, delivery_id)
    if found is None:
        raise RuntimeError("a delivery is gone within the transaction that found its owner")
    listed, sent = found
    attempts = [AnsweredAttempt.model_validate(one, from_attributes=True) for one in listed.attempts]
    return WholeDelivery(**{**dict(body(listed)), "attempts": attempts}, body=sent.decode())


def _walked(
    connection: Connection, window: DeliveryQuery, after: DeliveryPageStart | None, limit: int
) -> Iterator[Listed]:
    """Return at most `limit` deliveries, read as far as they are asked for: each has up to 50 attempts."""
    while limit > 0:
        found = pages.page(connection, window, after, min(limit, _READ_AT_ONCE))
        yield from found
        if len(found) < min(limit, _READ_AT_ONCE):
            return
        limit -= len(found)
        after = pages.place_of(found[-1], window)


def _cursor(window: DeliveryQuery, listed: Listed) -> str:
    place = pages.place_of(listed, window)
    return common.cursor_of(_Cursor(place.moment, place.id, window.status))


def _resume(cursor: str, status: DeliveryStatus | None) -> _Cursor:
    """Return where the page begins; a status that the query repeats must be the cursor's."""
    held = common.read_cursor(cursor, _Cursor)
    if status is not None and status is not held.status:
        raise InvalidError("status: is not the one that the cursor belongs to", param="status", code="invalid_cursor")
    return held


def body(listed: Listed) -> Delivery:
    """Return a delivery as it is listed."""
    return Delivery.model_validate(listed, from_attributes=True)
