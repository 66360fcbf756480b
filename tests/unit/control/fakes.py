"""Control's ports in memory."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from control.core.records import ApiKey, Chain, Endpoint, Group, ManagementKey, Secret, Shown
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

    def replace(self, endpoint: Endpoint) -> None:
        self.kept[endpoint.record.id] = endpoint

    def remove(self, endpoint: Endpoint, now: datetime) -> None:
        del self.kept[endpoint.record.id]


class FakeSecrets:
    def __init__(self) -> None:
        self.kept: dict[str, Secret] = {}
        self.users: dict[str, str] = {}

    def find(self, secret_id: str) -> Secret | None:
        return self.kept.get(secret_id)

    def named(self, workspace_id: str, name: str) -> Secret | None:
        named = (workspace_id, name)
        return next((kept for kept in self.kept.values() if (kept.record.workspace_id, kept.name) == named), None)

    def user(self, secret_id: str) -> str | None:
        return self.users.get(secret_id)

    def add(self, secret: Secret) -> None:
        self.kept[secret.record.id] = secret

    def replace(self, secret: Secret, now: datetime) -> None:
        self.kept[secret.record.id] = secret

    def remove(self, secret: Secret, now: datetime) -> None:
        del self.kept[secret.record.id]


class FakeJournal:
    def __init__(self) -> None:
        self.notes: list[tuple[str, str, str, Shown | None, Shown | None]] = []

    def note(
        self, workspace_id: str, action: str, subject: str, *, before: Shown | None = None, after: Shown | None = None
    ) -> None:
        self.notes.append((workspace_id, action, subject, before, after))

    @property
    def actions(self) -> list[str]:
        return [note[1] for note in self.notes]


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

    def remove(self, group: Group, now: datetime) -> None:
        for gone in (group, *self.descendants(group.record.id)):
            del self.kept[gone.record.id]


class FakeApiKeys:
    def __init__(self) -> None:
        self.kept: dict[str, ApiKey] = {}

    def find(self, prefix: str) -> ApiKey | None:
        return self.kept.get(prefix)

    def add(self, key: ApiKey) -> None:
        self.kept[key.record.prefix] = key

    def revoke(self, key: ApiKey, now: datetime) -> None:
        del self.kept[key.record.prefix]


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
        self.keys: dict[str, ManagementKey] = {}
        self.public_keys: dict[str, str] = {}
        self.changes = 0

    def find(self, name_or_id: str) -> WorkspaceRecord | None:
        return next((kept for kept in self.kept.values() if name_or_id in {kept.id, kept.name}), None)

    def prefix_owner(self, prefix: str) -> str | None:
        return self.prefixes.get(prefix.casefold())

    def add(self, workspace: WorkspaceRecord, now: datetime) -> None:
        self.kept[workspace.id] = workspace

    def replace(self, workspace: WorkspaceRecord, now: datetime) -> None:
        self.kept[workspace.id] = workspace
        self.changes += 1

    def add_prefix(self, workspace_id: str, org_prefix: str) -> None:
        self.prefixes[org_prefix.casefold()] = workspace_id

    def public_key(self, workspace_id: str) -> str | None:
        return self.public_keys.get(workspace_id)

    def set_public_key(self, workspace_id: str, public_key: str) -> None:
        self.public_keys[workspace_id] = public_key

    def management_key(self, prefix: str) -> ManagementKey | None:
        return self.keys.get(prefix)

    def add_key(self, key: ManagementKey, now: datetime) -> None:
        self.keys[key.prefix] = key

    def revoke_key(self, prefix: str, now: datetime) -> None:
        del self.keys[prefix]


class FakeWebhooks:
    def __init__(self) -> None:
        self.kept: dict[str, WebhookRecord] = {}

    def find(self, workspace_id: str) -> WebhookRecord | None:
        return self.kept.get(workspace_id)

    def save(self, webhook: WebhookRecord, now: datetime) -> None:
        self.kept[webhook.workspace_id] = webhook
