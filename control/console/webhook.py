"""Pages of the billing webhook: its settings, test and secret, and the deliveries."""

from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from litestar import Controller, Response, get, post
from litestar.params import FromPath, FromQuery
from sqlalchemy import Connection

from control.api import common
from control.api import deliveries as api
from control.api.common import AtDesk, Desk, ManagementRequest
from control.console import forms, guard, pages
from control.console.sign_in import AtPages
from control.core.refusals import RefusalError
from control.flow import deliveries
from control.flow import webhooks as flow
from schemas.base import rfc3339
from schemas.billing import BillingWebhook, DeliveryStatus, RedriveDeliveries, RotateSecret
from schemas.config import WebhookRecord
from webhooks.store import pages as stored
from webhooks.store import redrive
from webhooks.store.pages import DeliveryPageStart, DeliveryQuery, Listed

ROWS = 50


class _PageStart(NamedTuple):
    """Where a page ended."""

    moment: datetime
    id: str


class WebhookController(Controller):
    """``/console/webhook``."""

    path = "/webhook"

    @get()
    async def show(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        templates: AtPages,
        status: FromQuery[DeliveryStatus | None] = None,
        cursor: FromQuery[str] = "",
    ) -> Response[str]:
        """Show the settings and the deliveries, newest first."""
        part = "deliveries_found.html" if request.headers.get("hx-target") == "deliveries" else "webhook.html"
        return templates.page(request, part, **await _shown(request, desk, status, cursor))

    @post(status_code=200)
    async def save(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[Any]:
        """Set where the webhooks go."""
        fields, private = await guard.form(request), desk.settings.allow_private_receivers
        try:
            alerts = fields.get("usage_alerts", "").replace("%", "").replace(",", " ").split()
            values = {
                "url": fields.get("url", "").strip() or None,
                "enabled": fields.get("enabled") == "true",
                "usage_alerts": alerts,
            }
            wanted = forms.body(BillingWebhook, values)
            await desk.change(request.auth, lambda unit: flow.save(unit, wanted, allow_private=private))
        except RefusalError as error:
            return templates.refused(request, "webhook.html", error, **await _shown(request, desk))
        return _page()

    @post("/test", status_code=200)
    async def test(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[Any]:
        """Send a test delivery and show what came of it."""
        caller = request.auth
        try:
            record, url = await desk.look(caller, lambda connection: flow.receiver(desk.unit(connection, caller)))
            tested = await desk.sample_delivery.send(record, url, desk.clock())
        except RefusalError as error:
            return templates.refused(request, "webhook.html", error, **await _shown(request, desk))
        return templates.page(request, "webhook.html", **await _shown(request, desk) | {"tested": tested})

    @post("/rotate", status_code=200)
    async def rotate(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[Any]:
        """Make a new signing secret and show it, this once."""
        fields = await guard.form(request)
        try:
            overlap = forms.overlap(fields, RotateSecret)
            made = await desk.change(request.auth, lambda unit: flow.rotate_secret(unit, desk.vault, overlap))
        except RefusalError as error:
            return templates.refused(request, "webhook.html", error, **await _shown(request, desk))
        return templates.page(request, "secret_rotated.html", made=made)

    @get("/redrive")
    async def ask_to_redrive(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[str]:
        """Say how many deliveries a redrive of a window puts back, before it does."""
        caller, asked = request.auth, dict(request.query_params)
        try:
            window = {name: forms.moment(asked, name) for name in ("from", "to")}
        except RefusalError as error:
            return templates.refused(request, "redrive.html", error, count=None, fields=asked, window={})
        count = await desk.look(
            request.auth,
            lambda connection: redrive.count(connection, caller.workspace_id, window["from"], window["to"]),
        )
        return templates.page(request, "redrive.html", count=count, fields=asked, window=window)

    @post("/redrive", status_code=200)
    async def redrive(self, request: ManagementRequest, desk: AtDesk, templates: AtPages) -> Response[Any]:
        """Put back what ended in the window."""
        fields = await guard.form(request)
        try:
            bounds = {name: forms.moment(fields, name) for name in ("from", "to")}
            values = {name: None if at is None else rfc3339(at) for name, at in bounds.items()}
            wanted = forms.body(RedriveDeliveries, values)
            await api.redriven(desk, request.auth, wanted)
        except RefusalError as error:
            return templates.refused(request, "redrive.html", error, count=None, fields=fields, window={})
        return _page(DeliveryStatus.PENDING)

    @get("/deliveries/{delivery_id:str}")
    async def one(
        self, request: ManagementRequest, desk: AtDesk, templates: AtPages, delivery_id: FromPath[str]
    ) -> Response[str]:
        """Show one delivery with what was sent, and what each attempt was answered."""
        workspace_id = request.auth.workspace_id
        found = await desk.look(request.auth, lambda connection: api.whole(connection, workspace_id, delivery_id))
        return templates.page(request, "delivery.html", delivery=found, sent=pages.indented(found.body))

    @post("/deliveries/{delivery_id:str}/redeliver", status_code=200)
    async def redeliver(self, request: ManagementRequest, desk: AtDesk, delivery_id: FromPath[str]) -> Response[None]:
        """Have one delivery attempted again, now."""
        caller, now = request.auth, desk.clock()

        def put_back(connection: Connection) -> None:
            owner, again = stored.owner(connection, delivery_id), partial(redrive.redeliver, connection)
            deliveries.redeliver(desk.unit(connection, caller, now), delivery_id, owner, again)

        await desk.database.write(put_back)
        return pages.moved(pages.address("webhook", "deliveries", delivery_id))


def _page(status: DeliveryStatus | None = None) -> Response[None]:
    return pages.moved(pages.address("webhook", status=status))


async def _shown(
    request: ManagementRequest, desk: Desk, status: DeliveryStatus | None = None, cursor: str = ""
) -> dict[str, Any]:
    caller = request.auth
    held = common.read_cursor(cursor, _PageStart) if cursor else None
    after = None if held is None else DeliveryPageStart(held.moment, held.id)
    window, now = DeliveryQuery(caller.workspace_id, status), desk.clock()

    def find(connection: Connection) -> tuple[WebhookRecord, list[Listed]]:
        return flow.get(desk.unit(connection, caller)), stored.page(connection, window, after, ROWS + 1)

    settings, found = await desk.look(caller, find)
    shown, following = pages.cut(found, ROWS, lambda one: common.cursor_of(_PageStart(*stored.place_of(one, window))))
    return {
        "settings": settings,
        "ending": [secret.expires_at for secret in settings.secrets if secret.expires_at and secret.expires_at > now],
        "deliveries": shown,
        "following": following,
        "wanted": status,
        "statuses": list(DeliveryStatus),
        "tested": None,
    }
