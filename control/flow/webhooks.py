"""Billing webhooks: where they go, and the secrets that sign them (contract 2.5, section 5).

Never lets more than two secrets sign, and never gives a secret back but in the answer that makes it.
"""

from datetime import datetime, timedelta
from typing import Protocol

from control import addresses, credentials
from control.core import audit_view
from control.core.refusals import InvalidError, NotFoundError
from control.flow.journal import Journal
from runtime.vault import Vault, webhook_context
from schemas.base import rfc3339
from schemas.billing import BillingWebhook, RotatedSecret
from schemas.config import SealedSecret, WebhookRecord


class Webhooks(Protocol):
    """Where billing webhooks go."""

    def find(self, workspace_id: str) -> WebhookRecord | None:
        """Return the workspace's settings."""

    def save(self, webhook: WebhookRecord, now: datetime) -> None:
        """Keep new settings in place of the old and tell the other processes."""


def get(webhooks: Webhooks, workspace_id: str) -> WebhookRecord:
    """Return a workspace's settings. Raise NotFoundError."""
    found = webhooks.find(workspace_id)
    if found is None:
        raise NotFoundError(f"workspace: '{workspace_id}' has no webhook settings", param="workspace", code="not_found")
    return found


def receiver(webhooks: Webhooks, workspace_id: str) -> tuple[WebhookRecord, str]:
    """Return a workspace's settings and their URL. Raise InvalidError where none is set, NotFoundError."""
    found = get(webhooks, workspace_id)
    if found.url is None:
        raise InvalidError("url: no URL is set", param="url", code="no_url")
    return found, found.url


def save(
    webhooks: Webhooks,
    journal: Journal,
    now: datetime,
    *,
    workspace_id: str,
    body: BillingWebhook,
    allow_private: bool,
) -> WebhookRecord:
    """Set where the webhooks go, and whether they do; a URL that stays is not judged anew.

    Raise InvalidError, NotFoundError.
    """
    current = get(webhooks, workspace_id)
    if body.url is not None and body.url != current.url:
        problem = addresses.problem(body.url, allow_private=allow_private, allow_query=True)
        if problem:
            raise InvalidError(f"url: {problem}", param="url")
    changed = current.model_copy(update={"url": body.url, "enabled": body.enabled})
    webhooks.save(changed, now)
    journal.note(
        workspace_id,
        "webhook.update",
        workspace_id,
        before=audit_view.webhook(current),
        after=audit_view.webhook(changed),
    )
    return changed


def rotate_secret(
    webhooks: Webhooks, vault: Vault, journal: Journal, now: datetime, *, workspace_id: str, overlap: timedelta
) -> RotatedSecret:
    """Make a new signing secret; the one before signs beside it for `overlap`.

    Raise InvalidError where an earlier rotation's overlap is not over yet and `overlap` would let three sign.
    """
    current = get(webhooks, workspace_id)
    ending = [secret.expires_at for secret in current.secrets if secret.expires_at and secret.expires_at > now]
    if ending and overlap:
        raise InvalidError(
            f"overlap_seconds: the last rotation's overlap goes on until {rfc3339(max(ending))}; 0 ends it at once",
            param="overlap_seconds",
            code="rotation_under_way",
        )
    secret = credentials.mint_webhook_secret()
    sealed: tuple[SealedSecret, ...] = (SealedSecret(sealed=vault.seal(secret, context=webhook_context(workspace_id))),)
    expires_at = now + overlap if overlap else None
    if expires_at is not None:
        before = next(secret for secret in current.secrets if secret.expires_at is None)
        sealed = (*sealed, before.model_copy(update={"expires_at": expires_at}))
    webhooks.save(current.model_copy(update={"secrets": sealed}), now)
    after = {"previous_expires_at": None if expires_at is None else rfc3339(expires_at)}
    journal.note(workspace_id, "webhook.rotate_secret", workspace_id, after=after)
    return RotatedSecret(secret=secret, previous_expires_at=expires_at)
