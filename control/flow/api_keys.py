"""Developers' keys: minting one, taking over a lab's own, revoking one, looking one up (contract 2.3).

Never keeps a plaintext: a minted one leaves here once, in the answer to the one who asked for it.
"""

from datetime import datetime
from typing import Protocol

from control import credentials
from control.core import audit_view, registered_keys
from control.core.records import ApiKey
from control.core.refusals import InvalidError, NotFoundError
from control.flow.journal import Journal
from runtime import ids
from schemas.api import CreateApiKey, CreatedApiKey, RegisterApiKey
from schemas.config import KeyRecord


class ApiKeys(Protocol):
    """The keys that are not revoked."""

    def find(self, prefix: str) -> ApiKey | None:
        """Return the key of any group."""

    def add(self, key: ApiKey) -> None:
        """Keep a new key and tell the other processes."""

    def revoke(self, key: ApiKey, now: datetime) -> None:
        """Let a key work no longer and tell the other processes."""


def mint(
    keys: ApiKeys, journal: Journal, *, workspace_id: str, group_id: str, body: CreateApiKey, now: datetime
) -> CreatedApiKey:
    """Make a key for a group that the caller has found to be the workspace's own."""
    plaintext = credentials.mint_developer_key()
    key = _key(plaintext, workspace_id, group_id, body.name, now)
    keys.add(key)
    journal.note(workspace_id, "api_key.create", key.record.prefix, after=audit_view.api_key(key))
    return CreatedApiKey(api_key=plaintext, prefix=key.record.prefix, name=body.name)


def register(
    keys: ApiKeys, journal: Journal, *, workspace_id: str, group_id: str, body: RegisterApiKey, now: datetime
) -> ApiKey:
    """Take over a key that the lab made and signed, for a group of its own. Raise InvalidError."""
    registered_keys.check(body.key)
    key = _key(body.key, workspace_id, group_id, body.name, now)
    if keys.find(key.record.prefix) is not None:
        raise InvalidError("key: another key has the same first 16 characters", param="key", code="prefix_taken")
    keys.add(key)
    journal.note(workspace_id, "api_key.register", key.record.prefix, after=audit_view.api_key(key))
    return key


def check_signature(public_key: str | None, signature: str | None, body: bytes) -> None:
    """Raise InvalidError unless the workspace's public key confirms the signature of the raw body."""
    if public_key is None:
        raise InvalidError("Must configure a public key before registering API keys", code="no_public_key")
    if signature is None or not credentials.is_signed(public_key, signature, body):
        raise InvalidError("Signature verification failed", param="X-Baseten-Signature", code="invalid_signature")


def revoke(keys: ApiKeys, journal: Journal, *, workspace_id: str, group_id: str, prefix: str, now: datetime) -> ApiKey:
    """Let a key of the group work no longer. Raise NotFoundError."""
    key = get(keys, group_id, prefix)
    keys.revoke(key, now)
    journal.note(workspace_id, "api_key.revoke", prefix, before=audit_view.api_key(key))
    return key


def get(keys: ApiKeys, group_id: str, prefix: str) -> ApiKey:
    """Return a key of the group. Raise NotFoundError, also for a key of another group."""
    key = keys.find(prefix)
    if key is None or key.record.group_id != group_id:
        param = "api_key_prefix"
        raise NotFoundError(f"{param}: no key of this group has it", param=param, code="not_found")
    return key


def _key(plaintext: str, workspace_id: str, group_id: str, name: str | None, now: datetime) -> ApiKey:
    prefix, sha256 = credentials.prefix(plaintext), credentials.digest(plaintext)
    record = KeyRecord(prefix=prefix, workspace_id=workspace_id, group_id=group_id, sha256=sha256)
    return ApiKey(id=ids.mint(), record=record, name=name, created_at=now)
