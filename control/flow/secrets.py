"""Secrets: keeping an upstream's credential, replacing it, deleting it (contract 2.4).

Never gives a value back: what comes in leaves only as a sealed text, for its workspace and id alone.
"""

from dataclasses import replace

from control.core import audit_view
from control.core.records import StoredSecret
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.unit_of_work import UnitOfWork
from domain.sealing import secret_context
from runtime import ids
from runtime.vault import Vault
from schemas.api import CreateSecret
from schemas.config import SecretRecord


def save(unit: UnitOfWork, vault: Vault, body: CreateSecret) -> StoredSecret:
    """Keep a value under its name, in place of the one before; the id stays."""
    before = unit.secrets.named(unit.workspace_id, body.name)
    id_ = before.record.id if before else ids.mint()
    sealed = vault.seal(body.value, context=secret_context(unit.workspace_id, id_))
    record = SecretRecord(id=id_, workspace_id=unit.workspace_id, sealed=sealed)
    if before:
        secret = replace(before, record=record)
        unit.secrets.replace(secret, unit.now)
        shown = audit_view.secret(before), audit_view.secret(secret)
        unit.journal.note(unit.workspace_id, "secret.replace", id_, before=shown[0], after=shown[1])
    else:
        secret = StoredSecret(record=record, name=body.name, created_at=unit.now)
        unit.secrets.add(secret)
        unit.journal.note(unit.workspace_id, "secret.create", id_, after=audit_view.secret(secret))
    return secret


def delete(unit: UnitOfWork, secret_id: str) -> StoredSecret:
    """Delete a secret that no endpoint names; return what it was. Raise RefusalError."""
    secret = unit.secrets.find(secret_id)
    if secret is None:
        raise NotFoundError("secret_id: no secret has this id", param="secret_id", code="not_found")
    if secret.record.workspace_id != unit.workspace_id:
        raise ForbiddenError("secret_id: belongs to another workspace", param="secret_id", code="other_workspace")
    slug = unit.secrets.user(secret_id)
    if slug is not None:
        raise InvalidError(f"secret_id: the endpoint {slug} uses it", param="secret_id", code="secret_in_use")
    unit.secrets.remove(secret, unit.now)
    unit.journal.note(unit.workspace_id, "secret.delete", secret_id, before=audit_view.secret(secret))
    return secret
