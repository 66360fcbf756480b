"""Billing webhooks: where they go, and the secrets that sign them (contract 2.5, section 5).

Never lets more than three secrets sign, and never ends one before the time that was told for it.
"""

from datetime import timedelta

from control import addresses, credentials
from control.core import audit_view
from control.core.refusals import InvalidError, NotFoundError
from control.unit_of_work import UnitOfWork
from domain.sealing import webhook_context
from runtime.vault import Vault
from schemas.base import rfc3339
from schemas.billing import BillingWebhook, RotatedSecret
from schemas.config import SealedSecret, WebhookRecord

MOST_SIGNING = 3
"""Secrets that sign at once: a rotation may begin while the one before it is under way, a third may not."""


def get(unit: UnitOfWork) -> WebhookRecord:
    """Return the workspace's settings. Raise NotFoundError."""
    found = unit.webhooks.find(unit.workspace_id)
    if found is None:
        raise NotFoundError(
            f"workspace: '{unit.workspace_id}' has no webhook settings", param="workspace", code="not_found"
        )
    return found


def receiver(unit: UnitOfWork) -> tuple[WebhookRecord, str]:
    """Return the workspace's settings and their URL. Raise InvalidError where none is set, NotFoundError."""
    found = get(unit)
    if found.url is None:
        raise InvalidError("url: no URL is set", param="url", code="no_url")
    return found, found.url


def save(unit: UnitOfWork, body: BillingWebhook, *, allow_private: bool) -> WebhookRecord:
    """Set where the webhooks go, whether they do, and which alerts; a URL that stays is not judged anew.

    Raise InvalidError, NotFoundError.
    """
    current = get(unit)
    if body.url is not None and body.url != current.url:
        problem = addresses.problem(body.url, allow_private=allow_private, allow_query=True)
        if problem:
            raise InvalidError(f"url: {problem}", param="url")
    shares = tuple(sorted(set(body.usage_alerts)))
    changed = current.model_copy(update={"url": body.url, "enabled": body.enabled, "usage_alerts": shares})
    unit.webhooks.save(changed, unit.now)
    shown = audit_view.webhook(current), audit_view.webhook(changed)
    unit.journal.note(unit.workspace_id, "webhook.update", unit.workspace_id, before=shown[0], after=shown[1])
    return changed


def rotate_secret(unit: UnitOfWork, vault: Vault, overlap: timedelta) -> RotatedSecret:
    """Make a new signing secret; the one before signs beside it for `overlap`, and one that ends signs to its end.

    Raise InvalidError where `overlap` would let four sign.
    """
    current = get(unit)
    ending = tuple(secret for secret in current.secrets if secret.expires_at and secret.expires_at > unit.now)
    if overlap and len(ending) > MOST_SIGNING - 2:
        ends_at = rfc3339(min(secret.expires_at for secret in ending if secret.expires_at))
        raise InvalidError(
            f"overlap_seconds: {MOST_SIGNING} secrets sign already, until {ends_at}; until then only 0 is possible, "
            "which ends the current secret at once",
            param="overlap_seconds",
            code="rotation_under_way",
        )
    secret = credentials.mint_webhook_secret()
    context = webhook_context(unit.workspace_id)
    sealed: tuple[SealedSecret, ...] = (SealedSecret(sealed=vault.seal(secret, context=context)),)
    expires_at = unit.now + overlap if overlap else None
    if expires_at is not None:
        before = next(secret for secret in current.secrets if secret.expires_at is None)
        sealed = (*sealed, before.model_copy(update={"expires_at": expires_at}))
    unit.webhooks.save(current.model_copy(update={"secrets": (*sealed, *ending)}), unit.now)
    after = {"previous_expires_at": None if expires_at is None else rfc3339(expires_at)}
    unit.journal.note(unit.workspace_id, "webhook.rotate_secret", unit.workspace_id, after=after)
    return RotatedSecret(secret=secret, previous_expires_at=expires_at)
