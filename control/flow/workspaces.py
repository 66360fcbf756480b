"""Workspaces: onboarding a lab, its prefixes and keys, suspending it (contract 6).

A lab is whole or not there: its prefix, management key and signing secret come in one transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from control import credentials
from control.core import audit_view, rules
from control.core.records import ManagementKey, Scope
from control.core.refusals import InvalidError, NotFoundError
from control.unit_of_work import UnitOfWork, Workspaces
from domain import hosts
from domain.sealing import webhook_context
from runtime import ids
from runtime.vault import Vault
from schemas.config import SealedSecret, WebhookRecord, WorkspaceRecord, WorkspaceState


@dataclass(frozen=True, slots=True)
class Onboarded:
    """What the lab is told, once."""

    workspace_id: str
    api_key: str
    webhook_secret: str


def create(unit: UnitOfWork, vault: Vault, *, name: str, org_prefix: str, operator_credential: bool) -> Onboarded:
    """Onboard a lab. Raise InvalidError where the name or the prefix is taken or malformed."""
    rules.check_workspace_name(name)
    if unit.workspaces.find(name) is not None:
        raise InvalidError(f"name: a workspace named '{name}' exists already", param="name", code="name_taken")
    _check_prefix(unit.workspaces, org_prefix)
    workspace = WorkspaceRecord(
        id=ids.mint(), name=name, state=WorkspaceState.ACTIVE, operator_credential=operator_credential
    )
    unit.workspaces.add(workspace, unit.now)
    unit.workspaces.add_prefix(workspace.id, org_prefix)
    api_key, key = _mint(workspace, Scope.MANAGE)
    unit.workspaces.add_key(key, unit.now)
    secret = credentials.mint_webhook_secret()
    sealed = SealedSecret(sealed=vault.seal(secret, context=webhook_context(workspace.id)))
    webhook = WebhookRecord(workspace_id=workspace.id, url=None, enabled=True, secrets=(sealed,))
    unit.webhooks.save(webhook, unit.now)
    after = {**audit_view.workspace(workspace), "org_prefix": org_prefix, "management_key": key.prefix}
    unit.journal.note(workspace.id, "workspace.create", workspace.id, after=after)
    return Onboarded(workspace_id=workspace.id, api_key=api_key, webhook_secret=secret)


def set_state(unit: UnitOfWork, workspace: str, state: WorkspaceState) -> WorkspaceRecord:
    """Suspend or resume a workspace; no change where it is so already. Raise NotFoundError."""
    current = get(unit.workspaces, workspace)
    if current.state is state:
        return current
    changed = current.model_copy(update={"state": state})
    unit.workspaces.replace(changed, unit.now)
    action = "workspace.suspend" if state is WorkspaceState.SUSPENDED else "workspace.resume"
    unit.journal.note(
        changed.id, action, changed.id, before=audit_view.workspace(current), after=audit_view.workspace(changed)
    )
    return changed


def add_prefix(unit: UnitOfWork, workspace: str, org_prefix: str) -> WorkspaceRecord:
    """Let a workspace own one more org prefix. Raise InvalidError where it is taken or malformed, NotFoundError."""
    owner = get(unit.workspaces, workspace)
    _check_prefix(unit.workspaces, org_prefix)
    unit.workspaces.add_prefix(owner.id, org_prefix)
    unit.journal.note(owner.id, "workspace.add_prefix", owner.id, after={"org_prefix": org_prefix})
    return owner


def add_host(unit: UnitOfWork, workspace: str, host: str) -> WorkspaceRecord:
    """Serve a workspace alone under a host name; none is changed twice. Raise InvalidError, NotFoundError."""
    owner, name = get(unit.workspaces, workspace), hosts.named(host)
    if not hosts.is_name(name):
        message = "host: must be a domain name, as api.your-lab.com"
        raise InvalidError(message, param="host", code="invalid_host")
    other = unit.workspaces.host_owner(name)
    if other == owner.id:
        return owner
    if other is not None:
        raise InvalidError(f"host: '{name}' belongs to a workspace already", param="host", code="host_taken")
    return _with_hosts(unit, owner, sorted((*owner.hosts, name)), "workspace.add_host", name)


def remove_host(unit: UnitOfWork, workspace: str, host: str) -> WorkspaceRecord:
    """Let a host name be no workspace's. Raise NotFoundError."""
    owner, name = get(unit.workspaces, workspace), hosts.named(host)
    if name not in owner.hosts:
        message = f"host: '{name}' is not this workspace's; it has {', '.join(owner.hosts) or 'none'}"
        raise NotFoundError(message, param="host", code="not_found")
    return _with_hosts(unit, owner, [one for one in owner.hosts if one != name], "workspace.remove_host", name)


def _with_hosts(
    unit: UnitOfWork, owner: WorkspaceRecord, names: Sequence[str], action: str, host: str
) -> WorkspaceRecord:
    changed = owner.model_copy(update={"hosts": tuple(names)})
    unit.workspaces.replace(changed, unit.now)
    unit.journal.note(owner.id, action, owner.id, before={"hosts": owner.hosts}, after={"hosts": names, "host": host})
    return changed


def set_public_key(unit: UnitOfWork, workspace: str, pem: bytes) -> WorkspaceRecord:
    """Set the key that confirms what the lab signs. Raise InvalidError where it is not an Ed25519 public key."""
    owner = get(unit.workspaces, workspace)
    key = credentials.public_key(pem)
    if key is None:
        raise InvalidError("file: must be an Ed25519 public key in PEM form", param="file", code="invalid_public_key")
    before, after = {"public_key": unit.workspaces.public_key(owner.id)}, {"public_key": key}
    unit.workspaces.set_public_key(owner.id, key)
    unit.journal.note(owner.id, "workspace.set_public_key", owner.id, before=before, after=after)
    return owner


def issue_key(unit: UnitOfWork, workspace: str, scope: Scope) -> tuple[str, ManagementKey]:
    """Return a workspace one more management key, its plaintext this once. Raise NotFoundError."""
    plaintext, key = _mint(get(unit.workspaces, workspace), scope)
    unit.workspaces.add_key(key, unit.now)
    unit.journal.note(key.workspace_id, "management_key.create", key.prefix, after=audit_view.management_key(key))
    return plaintext, key


def revoke_key(unit: UnitOfWork, workspace: str, prefix: str) -> ManagementKey:
    """Let a workspace's management key work no longer. Raise NotFoundError."""
    owner = get(unit.workspaces, workspace)
    key = unit.workspaces.management_key(prefix)
    if key is None or key.workspace_id != owner.id:
        raise NotFoundError("prefix: no management key of this workspace has it", param="prefix", code="not_found")
    unit.workspaces.revoke_key(prefix, unit.now)
    unit.journal.note(owner.id, "management_key.revoke", prefix, before=audit_view.management_key(key))
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
