"""Queries of workspaces, their org prefixes, management keys and webhook settings."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from control.core.records import ManagementKey, Scope
from control.store.api_keys import SqlApiKeys
from control.store.tables import MANAGEMENT_KEYS, ORG_PREFIXES, WEBHOOK_SETTINGS, WORKSPACE_HOSTS, WORKSPACES
from runtime.config import log as config_log
from schemas.config import ConfigKind, WebhookRecord, WorkspaceRecord, WorkspaceState

_MANAGEMENT_KEYS = (
    select(MANAGEMENT_KEYS, WORKSPACES.c.state)
    .join(WORKSPACES, WORKSPACES.c.id == MANAGEMENT_KEYS.c.workspace_id)
    .where(MANAGEMENT_KEYS.c.revoked_at.is_(None))
)


def prefix_owner(connection: Connection, prefix: str) -> str | None:
    """Return the workspace that owns the prefix (compared case-folded)."""
    query = select(ORG_PREFIXES.c.workspace_id).where(ORG_PREFIXES.c.folded == prefix.casefold())
    owner: str | None = connection.execute(query).scalar_one_or_none()
    return owner


class SqlWorkspaces:
    """All workspaces, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, name_or_id: str) -> WorkspaceRecord | None:
        """Return the workspace of this name or id; an id wins over another's name."""
        query = select(WORKSPACES).where(or_(WORKSPACES.c.id == name_or_id, WORKSPACES.c.name == name_or_id))
        rows = sorted(self._connection.execute(query), key=lambda row: bool(row.id != name_or_id))
        return _workspace(rows[0], self._hosts(rows[0].id)) if rows else None

    def prefix_owner(self, prefix: str) -> str | None:
        """Return the workspace that owns the prefix (compared case-folded)."""
        return prefix_owner(self._connection, prefix)

    def add(self, workspace: WorkspaceRecord, now: datetime) -> None:
        """Keep a new workspace; the change goes to the log in the same transaction."""
        values = workspace.model_dump(mode="json", by_alias=False, exclude={"hosts"}) | {"created_at": now}
        self._connection.execute(insert(WORKSPACES).values(values))
        config_log.append(self._connection, now, ConfigKind.WORKSPACE, workspace.id, workspace)

    def replace(self, workspace: WorkspaceRecord, now: datetime) -> None:
        """Keep a workspace's new state; the change goes to the log in the same transaction."""
        change = update(WORKSPACES).where(WORKSPACES.c.id == workspace.id)
        self._connection.execute(change.values(state=workspace.state.value))
        self._keep_hosts(workspace)
        config_log.append(self._connection, now, ConfigKind.WORKSPACE, workspace.id, workspace)

    def host_owner(self, host: str) -> str | None:
        """Return the workspace that alone is served under the host name."""
        return SqlCredentials(self._connection).host_owner(host)

    def add_prefix(self, workspace_id: str, org_prefix: str) -> None:
        """Let the workspace own one more org prefix."""
        owner = {"folded": org_prefix.casefold(), "prefix": org_prefix, "workspace_id": workspace_id}
        self._connection.execute(insert(ORG_PREFIXES).values(owner))

    def org_prefixes(self, workspace_id: str) -> Sequence[str]:
        """Return the workspace's org prefixes as the operator wrote them, sorted."""
        query = select(ORG_PREFIXES.c.prefix).where(ORG_PREFIXES.c.workspace_id == workspace_id)
        return sorted(self._connection.execute(query).scalars())

    def public_key(self, workspace_id: str) -> str | None:
        """Return the key that confirms what the lab signs."""
        query = select(WORKSPACES.c.public_key).where(WORKSPACES.c.id == workspace_id)
        key: str | None = self._connection.execute(query).scalar_one_or_none()
        return key

    def set_public_key(self, workspace_id: str, public_key: str) -> None:
        """Keep the key that confirms what the lab signs."""
        change = update(WORKSPACES).where(WORKSPACES.c.id == workspace_id)
        self._connection.execute(change.values(public_key=public_key))

    def management_key(self, prefix: str) -> ManagementKey | None:
        """Return the management key that is not revoked, of any workspace."""
        return SqlCredentials(self._connection).management_key(prefix)

    def management_keys(self, workspace_id: str) -> Sequence[ManagementKey]:
        """Return the workspace's management keys that are not revoked, the oldest first."""
        query = _MANAGEMENT_KEYS.where(MANAGEMENT_KEYS.c.workspace_id == workspace_id)
        ordered = query.order_by(MANAGEMENT_KEYS.c.created_at, MANAGEMENT_KEYS.c.prefix)
        return [_management_key(row) for row in self._connection.execute(ordered)]

    def add_key(self, key: ManagementKey, now: datetime) -> None:
        """Keep one more management key."""
        self._connection.execute(
            insert(MANAGEMENT_KEYS).values(
                prefix=key.prefix,
                workspace_id=key.workspace_id,
                sha256=key.sha256,
                scope=key.scope.value,
                created_at=now,
            )
        )

    def revoke_key(self, prefix: str, now: datetime) -> None:
        """Let a management key work no longer."""
        change = update(MANAGEMENT_KEYS).where(MANAGEMENT_KEYS.c.prefix == prefix)
        self._connection.execute(change.values(revoked_at=now))

    def every(self) -> Sequence[WorkspaceRecord]:
        """Return all of them."""
        hosts: defaultdict[str, list[str]] = defaultdict(list)
        for row in self._connection.execute(select(WORKSPACE_HOSTS).order_by(WORKSPACE_HOSTS.c.host)):
            hosts[row.workspace_id].append(row.host)
        return [_workspace(row, hosts[row.id]) for row in self._connection.execute(select(WORKSPACES))]

    def _hosts(self, workspace_id: str) -> Sequence[str]:
        query = select(WORKSPACE_HOSTS.c.host).where(WORKSPACE_HOSTS.c.workspace_id == workspace_id)
        return list(self._connection.execute(query.order_by(WORKSPACE_HOSTS.c.host)).scalars())

    def _keep_hosts(self, workspace: WorkspaceRecord) -> None:
        kept = set(self._hosts(workspace.id))
        for gone in kept - set(workspace.hosts):
            self._connection.execute(delete(WORKSPACE_HOSTS).where(WORKSPACE_HOSTS.c.host == gone))
        for new in sorted(set(workspace.hosts) - kept):
            self._connection.execute(insert(WORKSPACE_HOSTS).values(host=new, workspace_id=workspace.id))


class SqlCredentials:
    """Credentials by their prefix, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def management_key(self, prefix: str) -> ManagementKey | None:
        """Return the management key that is not revoked."""
        row = self._connection.execute(_MANAGEMENT_KEYS.where(MANAGEMENT_KEYS.c.prefix == prefix)).first()
        return None if row is None else _management_key(row)

    def host_owner(self, host: str) -> str | None:
        """Return the workspace that alone is served under the host name."""
        query = select(WORKSPACE_HOSTS.c.workspace_id).where(WORKSPACE_HOSTS.c.host == host)
        owner: str | None = self._connection.execute(query).scalar_one_or_none()
        return owner

    def developer_key_sha256(self, prefix: str) -> str | None:
        """Return the digest of the developer's key that is not revoked."""
        key = SqlApiKeys(self._connection).find(prefix)
        return None if key is None else key.record.sha256


class SqlWebhooks:
    """Where the billing webhooks of each workspace go, in one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, workspace_id: str) -> WebhookRecord | None:
        """Return the workspace's settings."""
        query = select(WEBHOOK_SETTINGS).where(WEBHOOK_SETTINGS.c.workspace_id == workspace_id)
        row = self._connection.execute(query).first()
        return None if row is None else _webhook(row)

    def save(self, webhook: WebhookRecord, now: datetime) -> None:
        """Keep new settings in place of the old; the change goes to the log in the same transaction."""
        values = webhook.model_dump(mode="json", by_alias=False) | {"updated_at": now}
        change = update(WEBHOOK_SETTINGS).where(WEBHOOK_SETTINGS.c.workspace_id == webhook.workspace_id)
        if not self._connection.execute(change.values(values)).rowcount:
            self._connection.execute(insert(WEBHOOK_SETTINGS).values(values))
        config_log.append(self._connection, now, ConfigKind.WEBHOOK, webhook.workspace_id, webhook)

    def every(self) -> Sequence[WebhookRecord]:
        """Return all of them."""
        return [_webhook(row) for row in self._connection.execute(select(WEBHOOK_SETTINGS))]


def _workspace(row: Row[Any], hosts: Sequence[str]) -> WorkspaceRecord:
    return WorkspaceRecord(
        id=row.id,
        name=row.name,
        state=WorkspaceState(row.state),
        operator_credential=row.operator_credential,
        hosts=tuple(hosts),
    )


def _management_key(row: Row[Any]) -> ManagementKey:
    return ManagementKey(
        prefix=row.prefix,
        workspace_id=row.workspace_id,
        workspace_state=WorkspaceState(row.state),
        sha256=row.sha256,
        scope=Scope(row.scope),
    )


def _webhook(row: Row[Any]) -> WebhookRecord:
    return WebhookRecord(
        workspace_id=row.workspace_id,
        url=row.url,
        enabled=row.enabled,
        secrets=row.secrets,
        usage_alerts=row.usage_alerts,
    )
