"""Routes of billing webhooks' settings (contract 2.5)."""

from datetime import timedelta

from litestar import Controller, get, post, put
from litestar.params import JSONBody

from control.api import errors
from control.api.common import AtDesk, IdempotencyKey, ManagementRequest
from control.flow import webhooks as flow
from schemas.billing import BillingWebhook, RotatedSecret, RotateSecret, TestedWebhook
from schemas.config import WebhookRecord


class BillingWebhookController(Controller):
    """``/v1/gateway/billing_webhook``."""

    path = "/gateway/billing_webhook"
    tags = ("Billing",)

    @get(operation_id="get_billing_webhook", summary="Get the webhook's settings", responses=errors.READ_ERRORS)
    async def get_one(self, request: ManagementRequest, desk: AtDesk) -> BillingWebhook:
        """Get where the workspace's billing webhooks go."""
        caller = request.auth
        return _body(await desk.look(caller, lambda connection: flow.get(desk.unit(connection, caller))))

    @put(
        status_code=200,
        operation_id="update_billing_webhook",
        summary="Set the webhook's settings",
        responses=errors.WRITE_ERRORS,
    )
    async def replace(self, request: ManagementRequest, desk: AtDesk, data: JSONBody[BillingWebhook]) -> BillingWebhook:
        """Set where the webhooks go. Without a URL deliveries are kept as `not_due`; disabled, pending ones wait.

        All three are replaced: without `usage_alerts` none are told of.
        """
        private = desk.settings.allow_private_receivers
        return _body(await desk.change(request.auth, lambda unit: flow.save(unit, data, allow_private=private)))

    @post(
        "/rotate_secret",
        status_code=200,
        operation_id="rotate_webhook_secret",
        summary="Make a new signing secret",
        responses=errors.REPEATABLE,
    )
    async def rotate(
        self, request: ManagementRequest, desk: AtDesk, data: JSONBody[RotateSecret], key: IdempotencyKey = None
    ) -> RotatedSecret:
        """Make a new signing secret, shown this once; the one before signs too until the overlap ends.

        A rotation may begin within the overlap of another: the oldest secret signs until its promised time, so up to
        three sign.
        """
        overlap = timedelta(seconds=data.overlap_seconds)
        return await desk.post(request, RotatedSecret, lambda unit: flow.rotate_secret(unit, desk.vault, overlap), key)

    @post(
        "/test",
        status_code=200,
        operation_id="test_billing_webhook",
        summary="Send a test delivery",
        responses=errors.READ_ERRORS,
    )
    async def test(self, request: ManagementRequest, desk: AtDesk) -> TestedWebhook:
        """Send one signed delivery of `type` `API_BILLING_TEST`, whose event has `kind` `test`; it is on no bill."""
        caller = request.auth
        record, url = await desk.look(caller, lambda connection: flow.receiver(desk.unit(connection, caller)))
        return await desk.sample_delivery.send(record, url, desk.clock())


def _body(record: WebhookRecord) -> BillingWebhook:
    asked = {"usage_alerts": record.usage_alerts} if record.usage_alerts else {}  # left out where none are asked for
    return BillingWebhook(url=record.url, enabled=record.enabled, **asked)
