"""What one call of a lab or the operator works with, in one transaction: who asks, when, the stores, the audit log.

The ports of control's flows are declared here; `control.store.units` implements them over a database.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from control.core.records import (
    Chain,
    KeptAnswer,
    LimitBelow,
    ManagementKey,
    Shown,
    StoredApiKey,
    StoredEndpoint,
    StoredGroup,
    StoredSecret,
)
from schemas.config import WebhookRecord, WorkspaceRecord
from schemas.money import Prices


class Journal(Protocol):
    """Notes changes in the audit log on behalf of one actor."""

    def note(
        self, workspace_id: str, action: str, subject: str, *, before: Shown | None = None, after: Shown | None = None
    ) -> None:
        """Note what was done to whom; `subject` is a thing's id, or its prefix for a key. Never give it a secret."""


class Workspaces(Protocol):
    """The workspaces, their org prefixes and management keys."""

    def find(self, name_or_id: str) -> WorkspaceRecord | None:
        """Return the workspace of this name or id."""

    def prefix_owner(self, prefix: str) -> str | None:
        """Return the workspace that owns the prefix (compared case-folded)."""

    def add(self, workspace: WorkspaceRecord, now: datetime) -> None:
        """Keep a new workspace and tell the other processes."""

    def replace(self, workspace: WorkspaceRecord, now: datetime) -> None:
        """Keep a workspace's new state and hosts, and tell the other processes."""

    def host_owner(self, host: str) -> str | None:
        """Return the workspace that alone is served under the host name."""

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


class Webhooks(Protocol):
    """Where billing webhooks go."""

    def find(self, workspace_id: str) -> WebhookRecord | None:
        """Return the workspace's settings."""

    def save(self, webhook: WebhookRecord, now: datetime) -> None:
        """Keep new settings in place of the old and tell the other processes."""


class PriceLists(Protocol):
    """What the use of slugs costs."""

    def find(self, workspace_id: str) -> Prices:
        """Return the workspace's prices; none where it has set none."""

    def save(self, workspace_id: str, prices: Prices, now: datetime) -> None:
        """Keep new prices in place of all the old."""


class Endpoints(Protocol):
    """The stored endpoints and who owns which org prefix."""

    def prefix_owner(self, prefix: str) -> str | None:
        """Return the workspace that owns the prefix (compared case-folded)."""

    def slug_taken(self, slug: str) -> bool:
        """Tell whether any workspace has an endpoint of this slug."""

    def missing(self, workspace_id: str, slugs: Iterable[str]) -> Sequence[str]:
        """Return those slugs that name no endpoint of the workspace, in their order."""

    def find(self, endpoint_id: str) -> StoredEndpoint | None:
        """Return the endpoint of any workspace."""

    def add(self, endpoint: StoredEndpoint) -> None:
        """Keep a new endpoint and tell the other processes."""

    def replace(self, endpoint: StoredEndpoint) -> None:
        """Keep an endpoint's new slug and target and tell the other processes."""

    def remove(self, endpoint: StoredEndpoint, now: datetime) -> None:
        """Forget an endpoint and tell the other processes."""


class Secrets(Protocol):
    """The stored secrets and who uses them."""

    def find(self, secret_id: str) -> StoredSecret | None:
        """Return the secret of any workspace."""

    def named(self, workspace_id: str, name: str) -> StoredSecret | None:
        """Return the workspace's secret of this name."""

    def user(self, secret_id: str) -> str | None:
        """Return the slug of an endpoint whose target names the secret."""

    def add(self, secret: StoredSecret) -> None:
        """Keep a new secret and tell the other processes."""

    def replace(self, secret: StoredSecret, now: datetime) -> None:
        """Keep a secret's new value and tell the other processes."""

    def remove(self, secret: StoredSecret, now: datetime) -> None:
        """Forget a secret and tell the other processes."""


class Groups(Protocol):
    """The live groups of all workspaces."""

    def chain(self, group_id: str) -> Chain:
        """Return the live group and its way to the root; empty where there is none."""

    def below(self, group_id: str, slugs: Collection[str]) -> Iterable[LimitBelow]:
        """Return each limit that the live groups below it set on these slugs."""

    def external_id_owner(self, workspace_id: str, external_entity_id: str) -> str | None:
        """Return the id of the live group of the workspace that has this external id."""

    def add(self, group: StoredGroup) -> None:
        """Keep a new group and tell the other processes."""

    def replace(self, group: StoredGroup, before: StoredGroup) -> None:
        """Keep the new name and models of a group; tell the other processes where its record is not as `before`."""

    def remove(self, group: StoredGroup, now: datetime) -> None:
        """Forget a group and all below it, revoke their keys, and tell the other processes."""


class ApiKeys(Protocol):
    """Developers' keys that are not revoked."""

    def find(self, prefix: str) -> StoredApiKey | None:
        """Return the key of any group."""

    def add(self, key: StoredApiKey) -> None:
        """Keep a new key and tell the other processes."""

    def replace(self, key: StoredApiKey, now: datetime) -> None:
        """Keep what a change may set of a key and tell the other processes."""

    def revoke(self, key: StoredApiKey, now: datetime) -> None:
        """Let a key work no longer and tell the other processes."""


class Answers(Protocol):
    """The answers that are kept for a repeated POST."""

    def find(self, name: str, now: datetime) -> KeptAnswer | None:
        """Return the answer kept under this name within the last 24 h."""

    def keep(self, answer: KeptAnswer, now: datetime) -> None:
        """Keep one more answer, of at most 10,000 a workspace."""


@dataclass(frozen=True, slots=True)
class UnitOfWork:
    """One call, in one transaction. All that it writes is committed together, or not at all."""

    workspace_id: str
    """Whose things the flows work on; "" for the operator, whose flows are told a workspace's name."""
    now: datetime
    journal: Journal
    workspaces: Workspaces
    webhooks: Webhooks
    prices: PriceLists
    endpoints: Endpoints
    secrets: Secrets
    groups: Groups
    api_keys: ApiKeys
    answers: Answers
    if_match: str | None = None
    """The call's `If-Match` header: a change of something else than what it names is refused."""

    def of(self, workspace_id: str) -> "UnitOfWork":
        """Return the same unit for one workspace: how the operator works on a lab's things."""
        return replace(self, workspace_id=workspace_id)
