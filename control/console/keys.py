"""Pages of a group's keys: minting one, changing, rotating and revoking it.

Never shows a plaintext but on the one page that answers the minting.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery
from sqlalchemy import Connection

from control.api.common import AtDesk, Desk, ManagementRequest
from control.auth import Caller
from control.console import customers, forms, guard, pages
from control.console.pages import Pages
from control.console.sign_in import AtPages
from control.core import bodies, preconditions
from control.core.records import StoredApiKey
from control.core.refusals import RefusalError
from control.flow import api_keys as flow
from control.flow import groups
from domain import days
from metering.store import key_usage
from metering.store.pages import EventQuery, Order, PageStart, newest
from schemas.api import CreateApiKey, CreatedApiKey, RotateApiKey, RotatedApiKey, UpdateApiKey
from schemas.base import rfc3339
from schemas.limits import ANY_SLUG

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
        fields = await guard.form(request)
        try:
            wanted = forms.body(CreateApiKey, forms.given(fields, "name") | {"expires_at": _end(fields)})
            made = await desk.change(request.auth, lambda unit: flow.mint(unit, group_id, wanted))
        except RefusalError as error:
            shown = await customers.found(request, desk, group_id)
            return templates.refused(request, "customer.html", error, **shown)
        return await _once(request, desk, templates, group_id=group_id, made=made)

    @get("/change")
    async def ask_to_change(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        templates: AtPages,
        group_id: FromPath[str],
        prefix: FromQuery[str],
    ) -> Response[str]:
        """Show what may be changed of a key."""
        return templates.page(request, "key.html", **await _shown(request, desk, group_id, prefix))

    @post("/change", status_code=200)
    async def change(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, group_id: FromPath[str]
    ) -> Response[Any]:
        """Change a key's name, its end, or whether it is disabled, if nobody changed it meanwhile."""

        async def changed(fields: forms.Fields, prefix: str) -> Response[Any]:
            values = {"name": fields.get("name", "").strip() or None, "expires_at": _end(fields)}
            wanted = forms.body(UpdateApiKey, values | {"disabled": fields.get("disabled") == "true"})
            await desk.change(
                request.auth, lambda unit: flow.update(unit, group_id, prefix, wanted), if_match=fields.get("etag")
            )
            return pages.moved(pages.address("customers", group_id) + "#keys")

        return await _done(request, desk, templates, group_id, changed)

    @post("/rotate", status_code=200)
    async def rotate(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, group_id: FromPath[str]
    ) -> Response[Any]:
        """Make a key's successor and show it, this once; the old one works on until the overlap ends."""

        async def rotated(fields: forms.Fields, prefix: str) -> Response[Any]:
            overlap = forms.overlap(fields, RotateApiKey)
            made = await desk.change(request.auth, lambda unit: flow.rotate(unit, group_id, prefix, overlap))
            end = made.previous_expires_at
            return await _once(request, desk, templates, group_id=group_id, made=made, previous_ends=end)

        return await _done(request, desk, templates, group_id, rotated)

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
        prefix = (await guard.form(request)).get("prefix", "")
        await desk.change(request.auth, lambda unit: flow.revoke(unit, group_id, prefix))
        return pages.moved(pages.address("customers", group_id) + "#keys")


def _end(fields: forms.Fields) -> str | None:
    at = forms.moment(fields, "expires_at")
    return None if at is None else rfc3339(at)


async def _once(
    request: ManagementRequest,
    desk: Desk,
    templates: Pages,
    *,
    group_id: str,
    made: CreatedApiKey | RotatedApiKey,
    previous_ends: datetime | None = None,
) -> Response[str]:
    """Return the one page that shows a key, with what a developer does with it."""
    shown = await customers.found(request, desk, group_id)
    slug = next((model.slug for model in shown["group"].effective_models if model.slug != ANY_SLUG), "your-org/model")
    given = {"made": made, "group": shown["group"], "slug": slug, "previous_ends": previous_ends}
    settings = desk.settings
    gateway = settings.inference_url or ("$GATEWAY" if settings.kafka_bootstrap else guard.origin(request))
    return templates.page(request, "key_minted.html", gateway=gateway, **given)


async def _shown(request: ManagementRequest, desk: Desk, group_id: str, prefix: str) -> dict[str, Any]:
    caller = request.auth

    def find(connection: Connection) -> dict[str, Any]:
        unit = desk.unit(connection, caller)
        key, chain = flow.get(unit, group_id, prefix), groups.get(unit, group_id)
        used = key_usage.last_used(connection, group_id, [prefix]).get(prefix)
        body = bodies.api_key(key, used)
        etag = preconditions.entity_tag(bodies.api_key(key))
        return {"key": body, "successor": key.successor_prefix, "group": bodies.group(chain), "etag": etag}

    return {**await desk.look(caller, find), "now": desk.clock(), "fields": {}}


async def _done(
    request: ManagementRequest,
    desk: Desk,
    templates: Pages,
    group_id: str,
    act: Callable[[forms.Fields, str], Awaitable[Response[Any]]],
) -> Response[Any]:
    """Return what `act` returns for the form and the key's prefix in it, or the key's page with why it was refused."""
    fields = await guard.form(request)
    prefix = fields.get("prefix", "")
    try:
        return await act(fields, prefix)
    except RefusalError as error:
        shown = await _shown(request, desk, group_id, prefix)
        return templates.refused(request, "key.html", error, **shown | {"fields": fields})


def _in_use(
    connection: Connection, desk: Desk, caller: Caller, group_id: str, prefix: str
) -> tuple[StoredApiKey, Any, int]:
    unit = desk.unit(connection, caller)
    key, chain = flow.get(unit, group_id, prefix), groups.get(unit, group_id)
    now = desk.clock()
    today = PageStart(days.reset_at(now.date() - timedelta(days=1)), "")
    window = EventQuery(caller.workspace_id, Order.TIMESTAMP, today, now, api_key_prefix=prefix)
    return key, chain[0], len(newest(connection, window, None, _COUNTED))
