"""Pages of a group's keys: minting one and revoking one.

Never shows a plaintext but on the one page that answers the minting.
"""

from datetime import timedelta
from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery
from sqlalchemy import Connection

from control.api.common import AtDesk, Desk, ManagementRequest
from control.auth import Caller
from control.console import customers, forms, pages, seats
from control.console.sign_in import AtPages
from control.core.records import StoredApiKey
from control.core.refusals import RefusalError
from control.flow import api_keys as flow
from control.flow import groups
from domain import days
from metering.store.pages import EventQuery, Order, PageStart, newest
from schemas.api import CreateApiKey

_COUNTED = 1000
"""Up to how many calls of today are counted on the page that asks before a key is revoked."""


class KeyController(Controller):
    """``/console/customers/{group_id}/keys``. A prefix may hold slashes: it is a field, never a part of a path."""

    path = "/customers/{group_id:str}/keys"

    @post(status_code=200)
    async def mint(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, group_id: FromPath[str]
    ) -> Response[Any]:
        """Mint a key and show it, this once."""
        fields = await seats.form(request)
        try:
            wanted = forms.body(CreateApiKey, forms.given(fields, "name"))
            made = await desk.change(request.auth, lambda unit: flow.mint(unit, group_id, wanted))
        except RefusalError as error:
            shown = await customers.found(request, desk, group_id)
            return templates.refused(request, "customer.html", error, **shown)
        shown = await customers.found(request, desk, group_id)
        slug = next((model.slug for model in shown["group"].effective_models), "your-org/model")
        return templates.page(request, "key_minted.html", made=made, group=shown["group"], slug=slug)

    @get("/revoke")
    async def ask(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        templates: AtPages,
        group_id: FromPath[str],
        prefix: FromQuery[str],
    ) -> Response[str]:
        """Say how much a key is in use before it is revoked."""
        caller = request.auth
        key, group, calls = await desk.look(
            request.auth, lambda connection: _in_use(connection, desk, caller, group_id, prefix)
        )
        return templates.page(request, "key_revoke.html", key=key, group=group, calls=calls, counted=_COUNTED)

    @post("/revoke", status_code=200)
    async def revoke(self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str]) -> Response[None]:
        """Revoke a key."""
        prefix = (await seats.form(request)).get("prefix", "")
        await desk.change(request.auth, lambda unit: flow.revoke(unit, group_id, prefix))
        return pages.moved(pages.address("customers", group_id) + "#keys")


def _in_use(
    connection: Connection, desk: Desk, caller: Caller, group_id: str, prefix: str
) -> tuple[StoredApiKey, Any, int]:
    unit = desk.unit(connection, caller)
    key, chain = flow.get(unit, group_id, prefix), groups.get(unit, group_id)
    now = desk.clock()
    today = PageStart(days.reset_at(now.date() - timedelta(days=1)), "")
    window = EventQuery(caller.workspace_id, Order.TIMESTAMP, today, now, api_key_prefix=prefix)
    return key, chain[0], len(newest(connection, window, None, _COUNTED))
