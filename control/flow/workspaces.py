"""Workspaces: onboarding a lab, its prefixes and keys, suspending it (contract 6).

Never leaves half a lab: prefix, management key and signing secret come in one transaction.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from control import credentials
from control.core import audit_view, rules
from control.core.records import ManagementKey, Scope
from control.core.refusals import InvalidError, NotFoundError
from control.flow.journal import Journal
from control.flow.webhooks import Webhooks
from runtime import ids
from runtime.vault import Vault, webhook_context
from schemas.config import SealedSecret, WebhookRecord, WorkspaceRecord, WorkspaceState


class Workspaces(Protocol):
    """The workspaces, their org prefixes and management keys."""

    def find(self, name_or_id: str) -> WorkspaceRecord | None:
        """Return the workspace of this name or id."""

    def prefix_owner(self, prefix: str) -> str | None:
        """Return the workspace that owns the prefix (compared case-folded)."""

    def add(self, workspace: WorkspaceRecord, now: datetime) -> None:
        """Keep a new workspace and tell the other processes."""

    def replace(self, workspace: WorkspaceRecord, now: datetime) -> None:
        """Keep a workspace's new state and tell the other processes."""

    def add_prefix(self, workspace_id: str, org_prefix: str) -> None:
        """Let the workspace own one more org prefix."""

    def public_key(self, workspace_id: str) -> str | None:
        """Return the key that confirms what the lab signs."""

    def set_public_key(self, workspace_id: str, public_key: str) -> None:
        """Keep the key that confirms what the lab signs."""

    def management_key(self, prefix: str) -> ManagementKey | None:
        """Return the management key that is not revoked, of any workspace."""

    def add_key(self, key: ManagementKey, now: datetime) -> None:
        """Keep one more management key."""

    def revoke_key(self, prefix: str, now: datetime) -> None:
        """Let a management key work no longer."""


@dataclass(frozen=True, slots=True)
class Onboarded:
    """What the lab is told, once."""

    workspace_id: str
    api_key: str
    webhook_secret: str


def create(
    workspaces: Workspaces,
    webhooks: Webhooks,
    vault: Vault,
    journal: Journal,
    now: datetime,
    *,
    name: str,
    org_prefix: str,
    operator_credential: bool,
) -> Onboarded:
    """Onboard a lab. Raise InvalidError where the name or the prefix is taken or malformed."""
    rules.check_workspace_name(name)
    if workspaces.find(name) is not None:
        raise InvalidError(f"name: a workspace named '{name}' exists already", param="name", code="name_taken")
    _check_prefix(workspaces, org_prefix)
    workspace = WorkspaceRecord(
        id=ids.mint(), name=name, state=WorkspaceState.ACTIVE, operator_credential=operator_credential
    )
    workspaces.add(workspace, now)
    workspaces.add_prefix(workspace.id, org_prefix)
    api_key, key = _mint(workspace, Scope.MANAGE)
    workspaces.add_key(key, now)
    secret = credentials.mint_webhook_secret()
    sealed = SealedSecret(sealed=vault.seal(secret, context=webhook_context(workspace.id)))
    webhooks.save(WebhookRecord(workspace_id=workspace.id, url=None, enabled=True, secrets=(sealed,)), now)
    after = {**audit_view.workspace(workspace), "org_prefix": org_prefix, "management_key": key.prefix}
    journal.note(workspace.id, "workspace.create", workspace.id, after=after)
    return Onboarded(workspace_id=workspace.id, api_key=api_key, webhook_secret=secret)


def set_state(
    workspaces: Workspaces, journal: Journal, now: datetime, workspace: str, state: WorkspaceState
) -> WorkspaceRecord:
    """Suspend or resume a workspace; no change where it is so already. Raise NotFoundError."""
    current = get(workspaces, workspace)
    if current.state is state:
        return current
    changed = current.model_copy(update={"state": state})
    workspaces.replace(changed, now)
    action = "workspace.suspend" if state is WorkspaceState.SUSPENDED else "workspace.resume"
    journal.note(
        changed.id, action, changed.id, before=audit_view.workspace(current), after=audit_view.workspace(changed)
    )
    return changed


def add_prefix(workspaces: Workspaces, journal: Journal, workspace: str, org_prefix: str) -> WorkspaceRecord:
    """Let a workspace own one more org prefix. Raise InvalidError where it is taken or malformed, NotFoundError."""
    owner = get(workspaces, workspace)
    _check_prefix(workspaces, org_prefix)
    workspaces.add_prefix(owner.id, org_prefix)
    journal.note(owner.id, "workspace.add_prefix", owner.id, after={"org_prefix": org_prefix})
    return owner


def set_public_key(workspaces: Workspaces, journal: Journal, workspace: str, pem: bytes) -> WorkspaceRecord:
    """Set the key that confirms what the lab signs. Raise InvalidError where it is not an Ed25519 public key."""
    owner = get(workspaces, workspace)
    key = credentials.public_key(pem)
    if key is None:
        raise InvalidError("file: must be an Ed25519 public key in PEM form", param="file", code="invalid_public_key")
    before, after = {"public_key": workspaces.public_key(owner.id)}, {"public_key": key}
    workspaces.set_public_key(owner.id, key)
    journal.note(owner.id, "workspace.set_public_key", owner.id, before=before, after=after)
    return owner


def issue_key(
    workspaces: Workspaces, journal: Journal, now: datetime, workspace: str, scope: Scope
) -> tuple[str, ManagementKey]:
    """Return a workspace one more management key, its plaintext this once. Raise NotFoundError."""
    plaintext, key = _mint(get(workspaces, workspace), scope)
    workspaces.add_key(key, now)
    journal.note(key.workspace_id, "management_key.create", key.prefix, after=audit_view.management_key(key))
    return plaintext, key


def revoke_key(workspaces: Workspaces, journal: Journal, now: datetime, workspace: str, prefix: str) -> ManagementKey:
    """Let a workspace's management key work no longer. Raise NotFoundError."""
    owner = get(workspaces, workspace)
    key = workspaces.management_key(prefix)
    if key is None or key.workspace_id != owner.id:
        raise NotFoundError("prefix: no management key of this workspace has it", param="prefix", code="not_found")
    workspaces.revoke_key(prefix, now)
    journal.note(owner.id, "management_key.revoke", prefix, before=audit_view.management_key(key))
    return key


def get(workspaces: Workspaces, name_or_id: str) -> WorkspaceRecord:
    """Return a workspace by its name or id. Raise NotFoundError."""
    workspace = workspaces.find(name_or_id) if name_or_id.isprintable() else None
    if workspace is None:
        raise NotFoundError(f"workspace: none is named {name_or_id!r}", param="workspace", code="not_found")
    return workspace


def _mint(workspace: WorkspaceRecord, scope: Scope) -> tuple[str, ManagementKey]:
    plaintext = credentials.mint_management_key()
    key = ManagementKey(
        prefix=credentials.prefix(plaintext),
        workspace_id=workspace.id,
        workspace_state=workspace.state,
        sha256=credentials.digest(plaintext),
        scope=scope,
    )
    return plaintext, key


def _check_prefix(workspaces: Workspaces, org_prefix: str) -> None:
    rules.check_org_prefix(org_prefix)
    if workspaces.prefix_owner(org_prefix) is not None:
        raise InvalidError(
            f"org_prefix: '{org_prefix}' belongs to a workspace already", param="org_prefix", code="org_prefix_taken"
        )
