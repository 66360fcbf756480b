"""Workspaces: onboarding a lab, where its webhooks go, suspending it (spec section 6).

Never leaves half a lab: prefix, management key and signing secret come in one transaction.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from control import addresses, credentials
from control.core import rules
from control.core.records import ManagementKey, Scope
from control.core.refusals import InvalidError, NotFoundError
from runtime import ids
from runtime.vault import Vault, webhook_context
from schemas.config import SealedSecret, WebhookRecord, WorkspaceRecord, WorkspaceState


class Workspaces(Protocol):
    """The workspaces, their org prefixes and management keys."""

    def find(self, name_or_id: str) -> WorkspaceRecord | None:
        """Give the workspace of this name or id."""

    def prefix_owner(self, prefix: str) -> str | None:
        """Give the workspace that owns the prefix (compared case-folded)."""

    def add(self, workspace: WorkspaceRecord, org_prefix: str, key: ManagementKey, now: datetime) -> None:
        """Keep a new workspace and tell the other processes."""

    def replace(self, workspace: WorkspaceRecord, now: datetime) -> None:
        """Keep a workspace's new state and tell the other processes."""


class Webhooks(Protocol):
    """Where billing webhooks go."""

    def find(self, workspace_id: str) -> WebhookRecord | None:
        """Give the workspace's settings."""

    def save(self, webhook: WebhookRecord, now: datetime) -> None:
        """Keep new settings in place of the old and tell the other processes."""


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
    now: datetime,
    *,
    name: str,
    org_prefix: str,
    operator_credential: bool,
) -> Onboarded:
    """Onboard a lab. Raises InvalidError where the name or the prefix is taken or malformed."""
    rules.check_workspace_name(name)
    rules.check_org_prefix(org_prefix)
    if workspaces.find(name) is not None:
        raise InvalidError(f"name: a workspace named '{name}' exists already", param="name", code="name_taken")
    if workspaces.prefix_owner(org_prefix) is not None:
        raise InvalidError(
            f"org_prefix: '{org_prefix}' belongs to a workspace already", param="org_prefix", code="org_prefix_taken"
        )
    workspace = WorkspaceRecord(
        id=ids.mint(), name=name, state=WorkspaceState.ACTIVE, operator_credential=operator_credential
    )
    api_key, secret = credentials.mint_management_key(), credentials.mint_webhook_secret()
    key = ManagementKey(
        prefix=credentials.prefix(api_key),
        workspace_id=workspace.id,
        workspace_state=workspace.state,
        sha256=credentials.digest(api_key),
        scope=Scope.MANAGE,
    )
    workspaces.add(workspace, org_prefix, key, now)
    sealed = SealedSecret(sealed=vault.seal(secret, context=webhook_context(workspace.id)))
    webhooks.save(WebhookRecord(workspace_id=workspace.id, url=None, enabled=True, secrets=(sealed,)), now)
    return Onboarded(workspace_id=workspace.id, api_key=api_key, webhook_secret=secret)


def set_webhook(
    workspaces: Workspaces,
    webhooks: Webhooks,
    now: datetime,
    *,
    workspace: str,
    url: str | None,
    enabled: bool,
    allow_private: bool,
) -> WebhookRecord:
    """Set where the webhooks go (None: keep the URL) and whether they do. Raises InvalidError or NotFoundError."""
    current = webhooks.find(get(workspaces, workspace).id)
    if current is None:
        raise NotFoundError(f"workspace: '{workspace}' has no webhook settings", param="workspace", code="not_found")
    if url is not None:
        problem = addresses.problem(url, allow_private=allow_private, allow_query=True)
        if problem:
            raise InvalidError(f"url: {problem}", param="url")
    changed = current.model_copy(update={"url": url if url is not None else current.url, "enabled": enabled})
    webhooks.save(changed, now)
    return changed


def set_state(workspaces: Workspaces, now: datetime, workspace: str, state: WorkspaceState) -> WorkspaceRecord:
    """Suspend or resume a workspace; no change where it is so already. Raises NotFoundError."""
    current = get(workspaces, workspace)
    if current.state is state:
        return current
    changed = current.model_copy(update={"state": state})
    workspaces.replace(changed, now)
    return changed


def get(workspaces: Workspaces, name_or_id: str) -> WorkspaceRecord:
    """Give a workspace by its name or id. Raises NotFoundError."""
    workspace = workspaces.find(name_or_id) if name_or_id.isprintable() else None
    if workspace is None:
        raise NotFoundError(f"workspace: none is named {name_or_id!r}", param="workspace", code="not_found")
    return workspace
