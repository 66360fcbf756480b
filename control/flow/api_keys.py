"""Developers' keys: minting one, looking one up (spec 2.3).

Never keeps a plaintext: it leaves here once, in the answer to the one who asked for it.
"""

from datetime import datetime
from typing import Protocol

from control import credentials
from control.core.records import ApiKey
from control.core.refusals import NotFoundError
from runtime import ids
from schemas.api import CreateApiKey, CreatedApiKey
from schemas.config import KeyRecord


class ApiKeys(Protocol):
    """The keys that are not revoked."""

    def find(self, prefix: str) -> ApiKey | None:
        """Give the key of any group."""

    def add(self, key: ApiKey) -> None:
        """Keep a new key and tell the other processes."""


def mint(keys: ApiKeys, workspace_id: str, group_id: str, body: CreateApiKey, now: datetime) -> CreatedApiKey:
    """Make a key for a group that the caller has found to be the workspace's own."""
    plaintext = credentials.mint_developer_key()
    prefix = credentials.prefix(plaintext)
    sha256 = credentials.digest(plaintext)
    record = KeyRecord(prefix=prefix, workspace_id=workspace_id, group_id=group_id, sha256=sha256)
    keys.add(ApiKey(id=ids.mint(), record=record, name=body.name, created_at=now))
    return CreatedApiKey(api_key=plaintext, prefix=prefix, name=body.name)


def get(keys: ApiKeys, group_id: str, prefix: str) -> ApiKey:
    """Give a key of the group. Raises NotFoundError, also for a key of another group."""
    key = keys.find(prefix)
    if key is None or key.record.group_id != group_id:
        param = "api_key_prefix"
        raise NotFoundError(f"{param}: no key of this group has it", param=param, code="not_found")
    return key
