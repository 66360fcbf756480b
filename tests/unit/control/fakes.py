"""Control's ports in memory."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from control.core.records import ApiKey, Chain, Endpoint, Group, ManagementKey
from schemas.config import WebhookRecord, WorkspaceRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakeEndpoints:
    def __init__(self, owners: dict[str, str]) -> None:
        self.owners = owners
        self.kept: dict[str, Endpoint] = {}

    def prefix_owner(self, prefix: str) -> str | None:
        return self.owners.get(prefix.casefold())

    def slug_taken(self, slug: str) -> bool:
        return any(endpoint.record.slug == slug for endpoint in self.kept.values())

    def find(self, endpoint_id: str) -> Endpoint | None:
        return self.kept.get(endpoint_id)

    def add(self, endpoint: Endpoint) -> None:
        self.kept[endpoint.record.id] = endpoint


class FakeSlugs:
    def __init__(self, *slugs: str) -> None:
        self.slugs = set(slugs)

    def missing(self, workspace_id: str, slugs: Iterable[str]) -> Sequence[str]:
        return [slug for slug in slugs if slug not in self.slugs]


class FakeTree:
    def __init__(self) -> None:
        self.kept: dict[str, Group] = {}

    def chain(self, group_id: str) -> Chain:
        group = self.kept.get(group_id)
        return () if group is None else (group, *(self.kept[ancestor] for ancestor in group.record.ancestor_ids))

    def descendants(self, group_id: str) -> Sequence[Group]:
        return [group for group in self.kept.values() if group_id in group.record.ancestor_ids]

    def external_id_taken(self, workspace_id: str, external_entity_id: str) -> bool:
        return any(
            (group.record.workspace_id, group.record.external_entity_id) == (workspace_id, external_entity_id)
            for group in self.kept.values()
        )

    def add(self, group: Group) -> None:
        self.kept[group.record.id] = group

    def replace(self, group: Group, now: datetime) -> None:
        self.kept[group.record.id] = group


class FakeApiKeys:
    def __init__(self) -> None:
        self.kept: dict[str, ApiKey] = {}

    def find(self, prefix: str) -> ApiKey | None:
        return self.kept.get(prefix)

    def add(self, key: ApiKey) -> None:
        self.kept[key.record.prefix] = key


class FakeCredentials:
    def __init__(self, management: Sequence[ManagementKey] = (), developers: dict[str, str] | None = None) -> None:
        self.management = {key.prefix: key for key in management}
        self.developers = developers or {}

    def management_key(self, prefix: str) -> ManagementKey | None:
        return self.management.get(prefix)

    def developer_key_sha256(self, prefix: str) -> str | None:
        return self.developers.get(prefix)


class FakeWorkspaces:
    def __init__(self) -> None:
        self.kept: dict[str, WorkspaceRecord] = {}
        self.prefixes: dict[str, str] = {}
        self.keys: list[ManagementKey] = []
        self.changes = 0

    def find(self, name_or_id: str) -> WorkspaceRecord | None:
        return next((kept for kept in self.kept.values() if name_or_id in {kept.id, kept.name}), None)

    def prefix_owner(self, prefix: str) -> str | None:
        return self.prefixes.get(prefix.casefold())

    def add(self, workspace: WorkspaceRecord, org_prefix: str, key: ManagementKey, now: datetime) -> None:
        self.kept[workspace.id] = workspace
        self.prefixes[org_prefix.casefold()] = workspace.id
        self.keys.append(key)

    def replace(self, workspace: WorkspaceRecord, now: datetime) -> None:
        self.kept[workspace.id] = workspace
        self.changes += 1


class FakeWebhooks:
    def __init__(self) -> None:
        self.kept: dict[str, WebhookRecord] = {}

    def find(self, workspace_id: str) -> WebhookRecord | None:
        return self.kept.get(workspace_id)

    def save(self, webhook: WebhookRecord, now: datetime) -> None:
        self.kept[webhook.workspace_id] = webhook
