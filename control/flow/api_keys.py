"""Developers' keys: minting one, taking over a lab's own, revoking one, looking one up (contract 2.3).

Never keeps a plaintext: a minted one leaves here once, in the answer to the one who asked for it.
"""

from control import credentials
from control.core import audit_view, registered_keys
from control.core.records import ApiKey
from control.core.refusals import InvalidError, NotFoundError
from control.flow import groups
from control.unit_of_work import UnitOfWork
from runtime import ids
from schemas.api import CreateApiKey, CreatedApiKey, RegisterApiKey
from schemas.config import KeyRecord


def mint(unit: UnitOfWork, group_id: str, body: CreateApiKey) -> CreatedApiKey:
    """Make a key for a group of the workspace. Raise NotFoundError or ForbiddenError."""
    groups.get(unit, group_id)
    plaintext = credentials.mint_developer_key()
    key = _key(unit, group_id, plaintext, body.name)
    unit.api_keys.add(key)
    unit.journal.note(unit.workspace_id, "api_key.create", key.record.prefix, after=audit_view.api_key(key))
    return CreatedApiKey(api_key=plaintext, prefix=key.record.prefix, name=body.name)


def register(unit: UnitOfWork, group_id: str, body: RegisterApiKey, signature: str | None, raw: bytes) -> ApiKey:
    """Take over a key that the lab made, for a group of its own. Raise RefusalError.

    `signature` is that of the `raw` body, by the private half of the workspace's public key.
    """
    groups.get(unit, group_id)
    check_signature(unit.workspaces.public_key(unit.workspace_id), signature, raw)
    registered_keys.check(body.key)
    key = _key(unit, group_id, body.key, body.name)
    if unit.api_keys.find(key.record.prefix) is not None:
        raise InvalidError("key: another key has the same first 16 characters", param="key", code="prefix_taken")
    unit.api_keys.add(key)
    unit.journal.note(unit.workspace_id, "api_key.register", key.record.prefix, after=audit_view.api_key(key))
    return key


def check_signature(public_key: str | None, signature: str | None, body: bytes) -> None:
    """Raise InvalidError unless the workspace's public key confirms the signature of the raw body."""
    if public_key is None:
        raise InvalidError("Must configure a public key before registering API keys", code="no_public_key")
    if signature is None or not credentials.is_signed(public_key, signature, body):
        raise InvalidError("Signature verification failed", param="X-Baseten-Signature", code="invalid_signature")


def revoke(unit: UnitOfWork, group_id: str, prefix: str) -> ApiKey:
    """Let a key of the group work no longer. Raise NotFoundError."""
    key = get(unit, group_id, prefix)
    unit.api_keys.revoke(key, unit.now)
    unit.journal.note(unit.workspace_id, "api_key.revoke", prefix, before=audit_view.api_key(key))
    return key


def get(unit: UnitOfWork, group_id: str, prefix: str) -> ApiKey:
    """Return a key of the group. Raise NotFoundError, also for a key of another group."""
    groups.get(unit, group_id)
    key = unit.api_keys.find(prefix)
    if key is None or key.record.group_id != group_id:
        param = "api_key_prefix"
        raise NotFoundError(f"{param}: no key of this group has it", param=param, code="not_found")
    return key


def _key(unit: UnitOfWork, group_id: str, plaintext: str, name: str | None) -> ApiKey:
    prefix, sha256 = credentials.prefix(plaintext), credentials.digest(plaintext)
    record = KeyRecord(prefix=prefix, workspace_id=unit.workspace_id, group_id=group_id, sha256=sha256)
    return ApiKey(id=ids.mint(), record=record, name=name, created_at=unit.now)
