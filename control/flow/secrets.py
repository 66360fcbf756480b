"""Secrets: keeping an upstream's credential, replacing it, deleting it (contract 2.4).

Never gives a value back: what comes in leaves only as a sealed text, for its workspace and id alone.
"""

from dataclasses import replace
from datetime import datetime
from typing import Protocol

from control.core import audit_view
from control.core.records import Secret
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow.journal import Journal
from runtime import ids
from runtime.vault import Vault, secret_context
from schemas.api import CreateSecret
from schemas.config import SecretRecord


class Secrets(Protocol):
    """The stored secrets and who uses them."""

    def find(self, secret_id: str) -> Secret | None:
        """Return the secret of any workspace."""

    def named(self, workspace_id: str, name: str) -> Secret | None:
        """Return the workspace's secret of this name."""

    def user(self, secret_id: str) -> str | None:
        """Return the slug of an endpoint whose target names the secret."""

    def add(self, secret: Secret) -> None:
        """Keep a new secret and tell the other processes."""

    def replace(self, secret: Secret, now: datetime) -> None:
        """Keep a secret's new value and tell the other processes."""

    def remove(self, secret: Secret, now: datetime) -> None:
        """Forget a secret and tell the other processes."""


def save(
    secrets: Secrets, vault: Vault, journal: Journal, *, workspace_id: str, body: CreateSecret, now: datetime
) -> Secret:
    """Keep a value under its name, in place of the one before; the id stays."""
    before = secrets.named(workspace_id, body.name)
    id_ = before.record.id if before else ids.mint()
    sealed = vault.seal(body.value, context=secret_context(workspace_id, id_))
    record = SecretRecord(id=id_, workspace_id=workspace_id, sealed=sealed)
    if before:
        secret = replace(before, record=record)
        secrets.replace(secret, now)
        journal.note(
            workspace_id, "secret.replace", id_, before=audit_view.secret(before), after=audit_view.secret(secret)
        )
    else:
        secret = Secret(record=record, name=body.name, created_at=now)
        secrets.add(secret)
        journal.note(workspace_id, "secret.create", id_, after=audit_view.secret(secret))
    return secret


def delete(secrets: Secrets, journal: Journal, *, workspace_id: str, secret_id: str, now: datetime) -> Secret:
    """Delete a secret that no endpoint names; return what it was. Raise RefusalError."""
    secret = secrets.find(secret_id)
    if secret is None:
        raise NotFoundError("secret_id: no secret has this id", param="secret_id", code="not_found")
    if secret.record.workspace_id != workspace_id:
        raise ForbiddenError("secret_id: belongs to another workspace", param="secret_id", code="other_workspace")
    slug = secrets.user(secret_id)
    if slug is not None:
        raise InvalidError(f"secret_id: the endpoint {slug} uses it", param="secret_id", code="secret_in_use")
    secrets.remove(secret, now)
    journal.note(workspace_id, "secret.delete", secret_id, before=audit_view.secret(secret))
    return secret
