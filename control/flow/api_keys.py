"""Developers' keys: minting, taking over a lab's own, changing, rotating, revoking, looking one up (contract 2.3).

A plaintext that is minted leaves here once, in the answer to the one who asked for it.
"""

from dataclasses import replace
from datetime import timedelta

from control import credentials
from control.core import audit_view, bodies, fixed, preconditions, registered_keys
from control.core.records import StoredApiKey
from control.core.refusals import InvalidError, NotFoundError
from control.flow import groups
from control.unit_of_work import UnitOfWork
from runtime import ids
from schemas.api import (
    CreateApiKey,
    CreateApiKeys,
    CreatedApiKey,
    CreatedApiKeys,
    RegisterApiKey,
    RotatedApiKey,
    UpdateApiKey,
)
from schemas.base import rfc3339
from schemas.config import KeyRecord

_CHANGEABLE = ("name", "disabled", "expires_at", "metadata")
"""What a PATCH may change."""


def mint(unit: UnitOfWork, group_id: str, body: CreateApiKey) -> CreatedApiKey:
    """Make a key for a group of the workspace. Raise NotFoundError or ForbiddenError."""
    groups.get(unit, group_id)
    return _minted(unit, group_id, body)


def mint_all(unit: UnitOfWork, group_id: str, body: CreateApiKeys) -> CreatedApiKeys:
    """Make several keys for a group, all or none. Raise NotFoundError or ForbiddenError."""
    groups.get(unit, group_id)
    return CreatedApiKeys(items=tuple(_minted(unit, group_id, each) for each in body.items))


def update(unit: UnitOfWork, group_id: str, prefix: str, body: UpdateApiKey) -> StoredApiKey:
    """Change what a key may have; null takes it away. Raise RefusalError."""
    before = get(unit, group_id, prefix)
    shown = bodies.api_key(before)
    preconditions.check(unit.if_match, shown)
    fixed.check(body, shown, free={*_CHANGEABLE, "last_used_at"})
    given = {name: getattr(body, name) for name in _CHANGEABLE if name in body.model_fields_set}
    if not given:
        raise InvalidError(f"{', '.join(_CHANGEABLE)}: at least one of them is required", code="nothing_to_change")
    record = before.record.model_copy(update={"disabled": bool(given.get("disabled", before.disabled))})
    if "expires_at" in given:  # the lab sets the key's end: whatever a rotation set no longer holds
        record = record.model_copy(update={"expires_at": given.pop("expires_at")})
        given["successor_prefix"] = None
    key = replace(before, record=record, **given)
    unit.api_keys.replace(key, unit.now)
    noted = audit_view.api_key(before), audit_view.api_key(key)
    unit.journal.note(unit.workspace_id, "api_key.update", prefix, before=noted[0], after=noted[1])
    return key


def rotate(unit: UnitOfWork, group_id: str, prefix: str, overlap: timedelta) -> RotatedApiKey:
    """Make the successor of a key, which ends after `overlap`, or earlier where it would have. Raise RefusalError.

    A key whose end a rotation has set is refused: its successor would end with it.
    """
    before = get(unit, group_id, prefix)
    own_end = before.record.expires_at
    if before.successor_prefix is not None:
        message = f"api_key_prefix: it was rotated to '{before.successor_prefix}'; rotate that one"
        raise InvalidError(message, param="api_key_prefix", code="already_rotated")
    if own_end is not None and own_end <= unit.now:
        message = f"api_key_prefix: this key expired at {rfc3339(own_end)}; PATCH its expires_at, or make a new key"
        raise InvalidError(message, param="api_key_prefix", code="key_expired")
    minted = _minted(
        unit, group_id, CreateApiKey(name=before.name, expires_at=own_end, metadata=before.metadata), "api_key.rotate"
    )
    end = unit.now + overlap if own_end is None else min(own_end, unit.now + overlap)
    ending = replace(
        before, record=before.record.model_copy(update={"expires_at": end}), successor_prefix=minted.prefix
    )
    unit.api_keys.replace(ending, unit.now)
    noted = audit_view.api_key(before), audit_view.api_key(ending)
    unit.journal.note(unit.workspace_id, "api_key.end", prefix, before=noted[0], after=noted[1])
    return RotatedApiKey(api_key=minted.api_key, prefix=minted.prefix, name=minted.name, previous_expires_at=end)


def register(unit: UnitOfWork, group_id: str, body: RegisterApiKey, signature: str | None, raw: bytes) -> StoredApiKey:
    """Take over a key that the lab made, for a group of its own. Raise RefusalError.

    `signature` is that of the `raw` body, by the private half of the workspace's public key.
    """
    groups.get(unit, group_id)
    check_signature(unit.workspaces.public_key(unit.workspace_id), signature, raw)
    registered_keys.check(body.key)
    key = _key(unit, group_id, body.key, CreateApiKey(name=body.name))
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


def revoke(unit: UnitOfWork, group_id: str, prefix: str) -> StoredApiKey:
    """Let a key of the group work no longer. Raise NotFoundError."""
    key = get(unit, group_id, prefix)
    preconditions.check(unit.if_match, bodies.api_key(key))
    unit.api_keys.revoke(key, unit.now)
    unit.journal.note(unit.workspace_id, "api_key.revoke", prefix, before=audit_view.api_key(key))
    return key


def get(unit: UnitOfWork, group_id: str, prefix: str) -> StoredApiKey:
    """Return a key of the group. Raise NotFoundError, also for a key of another group."""
    groups.get(unit, group_id)
    key = unit.api_keys.find(prefix)
    if key is None or key.record.group_id != group_id:
        param = "api_key_prefix"
        raise NotFoundError(f"{param}: no key of this group has it", param=param, code="not_found")
    return key


def _minted(unit: UnitOfWork, group_id: str, body: CreateApiKey, action: str = "api_key.create") -> CreatedApiKey:
    plaintext = credentials.mint_developer_key()
    key = _key(unit, group_id, plaintext, body)
    unit.api_keys.add(key)
    unit.journal.note(unit.workspace_id, action, key.record.prefix, after=audit_view.api_key(key))
    return CreatedApiKey(api_key=plaintext, prefix=key.record.prefix, name=body.name)


def _key(unit: UnitOfWork, group_id: str, plaintext: str, body: CreateApiKey) -> StoredApiKey:
    record = KeyRecord(
        prefix=credentials.prefix(plaintext),
        workspace_id=unit.workspace_id,
        group_id=group_id,
        sha256=credentials.digest(plaintext),
        expires_at=body.expires_at,
    )
    return StoredApiKey(id=ids.mint(), record=record, name=body.name, created_at=unit.now, metadata=body.metadata)
