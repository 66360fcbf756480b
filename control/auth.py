"""Decides who calls the management API and whether they may (contract 2).

A credential that is unknown gets one answer, whether its prefix is known or not.
"""

from dataclasses import dataclass
from typing import Protocol

from control import credentials
from control.core.records import ManagementKey, Scope
from control.core.refusals import ForbiddenError, UnauthorizedError
from schemas.config import WorkspaceState

_SCHEMES = ("api-key", "bearer")
_MAX_KEY_LENGTH = 256
_NO_KEY = "0" * 64
"""Compared with where a prefix is unknown, so that unknown prefixes cost what unknown secrets do."""


class Keys(Protocol):
    """Looks up credentials by their prefix."""

    def management_key(self, prefix: str) -> ManagementKey | None:
        """Return the management key that is not revoked."""

    def host_owner(self, host: str) -> str | None:
        """Return the workspace that alone is served under the host name."""

    def developer_key_sha256(self, prefix: str) -> str | None:
        """Return the digest of the developer's key that is not revoked."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The workspace that a management key speaks for."""

    workspace_id: str
    key_prefix: str


def parse(header: str | None) -> str:
    """Take the key out of an ``Authorization`` header. Raise UnauthorizedError."""
    if not header:
        raise UnauthorizedError(
            "Authorization: missing; send 'Api-Key <management key>' or 'Bearer <management key>'",
            code="missing_api_key",
        )
    scheme, _, key = header.strip().partition(" ")
    key = key.strip()
    plain = key.isascii() and key.isprintable() and " " not in key
    if scheme.lower() not in _SCHEMES or not key or not plain or len(key) > _MAX_KEY_LENGTH:
        raise UnauthorizedError(
            "Authorization: malformed; send 'Api-Key <management key>' or 'Bearer <management key>'",
            code="invalid_api_key",
        )
    return key


def identify(keys: Keys, header: str | None, method: str, host: str) -> Caller:
    """Tell who calls. `host`: as `domain.hosts.named` returns it. Raise UnauthorizedError or ForbiddenError."""
    key = parse(header)
    prefix = credentials.prefix(key)
    found = keys.management_key(prefix)
    if found is not None and keys.host_owner(host) not in (None, found.workspace_id):
        found = None  # on a lab's host another lab's key is as good as none
    if not credentials.matches(key, found.sha256 if found else _NO_KEY) or found is None:
        _refuse_developer(keys, key, prefix)
        raise UnauthorizedError("Authorization: unknown or revoked management key", code="invalid_api_key")
    if found.workspace_state is WorkspaceState.SUSPENDED:
        raise ForbiddenError("the workspace is suspended; ask the operator", code="workspace_suspended")
    if found.scope is Scope.READ and method not in {"GET", "HEAD"}:
        raise ForbiddenError("this key has the scope 'read' and may only GET", code="insufficient_scope")
    return Caller(workspace_id=found.workspace_id, key_prefix=prefix)


def _refuse_developer(keys: Keys, key: str, prefix: str) -> None:
    sha256 = keys.developer_key_sha256(prefix)
    if sha256 is not None and credentials.matches(key, sha256):
        raise ForbiddenError(
            "this is a developer's key; the management API takes a workspace's management key", code="developer_key"
        )
