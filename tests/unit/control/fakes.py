"""Control's ports in memory, held to the real store by tests/contracts/control.

A fake whose answers depend on another's records is handed that one, as the tables of a database know each other.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from control.core import rules
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
from control.unit_of_work import UnitOfWork
from schemas.api import Region
from schemas.config import EndpointRecord, WebhookRecord, WorkspaceRecord
from schemas.money import Prices
from schemas.targets import Provider, Target
from schemas.usage import Producer, Tokens, UsageDraft, UsageEvent

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FakeEndpoints:
    """Implements `Endpoints`."""

    def __init__(self, workspaces: "FakeWorkspaces | None" = None) -> None:
        self.workspaces = workspaces or FakeWorkspaces()
        self.kept: dict[str, StoredEndpoint] = {}

    def prefix_owner(self, prefix: str) -> str | None:
        return self.workspaces.prefix_owner(prefix)

    def missing(self, workspace_id: str, slugs: Iterable[str]) -> Sequence[str]:
        there = {kept.record.slug for kept in self.kept.values() if kept.record.workspace_id == workspace_id}
        return [slug for slug in slugs if slug not in there]

    def slug_taken(self, slug: str) -> bool:
        return any(endpoint.record.slug == slug for endpoint in self.kept.values())

    def find(self, endpoint_id: str) -> StoredEndpoint | None:
        return self.kept.get(endpoint_id)

    def add(self, endpoint: StoredEndpoint) -> None:
        self.kept[endpoint.record.id] = endpoint

    def replace(self, endpoint: StoredEndpoint) -> None:
        self.kept[endpoint.record.id] = endpoint

    def remove(self, endpoint: StoredEndpoint, now: datetime) -> None:
        del self.kept[endpoint.record.id]


def endpoint(id_: str, slug: str, *, workspace_id: str = "w", secret_id: str | None = None) -> StoredEndpoint:
    """Make an endpoint whose target may name a secret."""
    named = {} if secret_id is None else {"secret_id": secret_id}
    target = Target(provider=Provider.BASETEN, model_id="abc", **named)
    record = EndpointRecord(id=id_, workspace_id=workspace_id, slug=slug, target=target, created_at=NOW)
    return StoredEndpoint(record, Region.UNRESTRICTED, NOW)


def serve(endpoints: FakeEndpoints, *slugs: str) -> None:
    """Leave just the endpoints of these slugs, of the workspace `w`."""
    endpoints.kept = {slug: endpoint(slug, slug) for slug in slugs}


class FakeSecrets:
    """Implements `Secrets`."""

    def __init__(self, endpoints: FakeEndpoints | None = None) -> None:
        self.endpoints = endpoints or FakeEndpoints()
        self.kept: dict[str, StoredSecret] = {}

    def find(self, secret_id: str) -> StoredSecret | None:
        return self.kept.get(secret_id)

    def named(self, workspace_id: str, name: str) -> StoredSecret | None:
        named = (workspace_id, name)
        return next((kept for kept in self.kept.values() if (kept.record.workspace_id, kept.name) == named), None)

    def user(self, secret_id: str) -> str | None:
        users = self.endpoints.kept.values()
        return next((user.record.slug for user in users if user.record.target.secret_id == secret_id), None)

    def add(self, secret: StoredSecret) -> None:
        self.kept[secret.record.id] = secret

    def replace(self, secret: StoredSecret, now: datetime) -> None:
        self.kept[secret.record.id] = secret

    def remove(self, secret: StoredSecret, now: datetime) -> None:
        del self.kept[secret.record.id]


class FakeJournal:
    """Implements `Journal`."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str, str, Shown | None, Shown | None]] = []

    def note(
        self, workspace_id: str, action: str, subject: str, *, before: Shown | None = None, after: Shown | None = None
    ) -> None:
        self.notes.append((workspace_id, action, subject, before, after))

    @property
    def actions(self) -> list[str]:
        return [note[1] for note in self.notes]


class FakeGroups:
    """Implements `Groups`."""

    def __init__(self, keys: "FakeApiKeys | None" = None) -> None:
        self.keys = keys or FakeApiKeys()
        self.kept: dict[str, StoredGroup] = {}

    def chain(self, group_id: str) -> Chain:
        group = self.kept.get(group_id)
        return () if group is None else (group, *(self.kept[ancestor] for ancestor in group.record.ancestor_ids))

    def below(self, group_id: str, slugs: Collection[str]) -> Iterable[LimitBelow]:
        for record in (group.record for group in self.kept.values() if group_id in group.record.ancestor_ids):
            set_ = rules.thresholds([model for model in record.models if model.slug in slugs])
            yield from (LimitBelow(record.id, place, threshold) for place, threshold in set_.items())

    def external_id_owner(self, workspace_id: str, external_entity_id: str) -> str | None:
        named = (workspace_id, external_entity_id)
        groups = self.kept.values()
        owners = (one for one in groups if (one.record.workspace_id, one.record.external_entity_id) == named)
        return next((owner.record.id for owner in owners), None)

    def add(self, group: StoredGroup) -> None:
        self.kept[group.record.id] = group

    def replace(self, group: StoredGroup, before: StoredGroup) -> None:
        self.kept[group.record.id] = group

    def remove(self, group: StoredGroup, now: datetime) -> None:
        for gone in [group, *(one for one in self.kept.values() if group.record.id in one.record.ancestor_ids)]:
            del self.kept[gone.record.id]
            for key in [key for key in self.keys.kept.values() if key.record.group_id == gone.record.id]:
                self.keys.revoke(key, now)


class FakeApiKeys:
    """Implements `ApiKeys`."""

    def __init__(self) -> None:
        self.kept: dict[str, StoredApiKey] = {}

    def find(self, prefix: str) -> StoredApiKey | None:
        return self.kept.get(prefix)

    def add(self, key: StoredApiKey) -> None:
        self.kept[key.record.prefix] = key

    def replace(self, key: StoredApiKey, now: datetime) -> None:
        self.kept[key.record.prefix] = key

    def revoke(self, key: StoredApiKey, now: datetime) -> None:
        del self.kept[key.record.prefix]


class FakeWorkspaces:
    """Implements `Workspaces`."""

    def __init__(self) -> None:
        self.kept: dict[str, WorkspaceRecord] = {}
        self.prefixes: dict[str, str] = {}
        self.keys: dict[str, ManagementKey] = {}
        self.public_keys: dict[str, str] = {}
        self.changes = 0

    def find(self, name_or_id: str) -> WorkspaceRecord | None:
        named = (kept for kept in self.kept.values() if kept.name == name_or_id)
        return self.kept.get(name_or_id) or next(named, None)

    def prefix_owner(self, prefix: str) -> str | None:
        return self.prefixes.get(prefix.casefold())

    def add(self, workspace: WorkspaceRecord, now: datetime) -> None:
        self.kept[workspace.id] = workspace

    def replace(self, workspace: WorkspaceRecord, now: datetime) -> None:
        self.kept[workspace.id] = workspace
        self.changes += 1

    def host_owner(self, host: str) -> str | None:
        return next((one.id for one in self.kept.values() if host in one.hosts), None)

    def add_prefix(self, workspace_id: str, org_prefix: str) -> None:
        self.prefixes[org_prefix.casefold()] = workspace_id

    def public_key(self, workspace_id: str) -> str | None:
        return self.public_keys.get(workspace_id)

    def set_public_key(self, workspace_id: str, public_key: str) -> None:
        self.public_keys[workspace_id] = public_key

    def management_key(self, prefix: str) -> ManagementKey | None:
        key = self.keys.get(prefix)
        return key and replace(key, workspace_state=self.kept[key.workspace_id].state)

    def add_key(self, key: ManagementKey, now: datetime) -> None:
        self.keys[key.prefix] = key

    def revoke_key(self, prefix: str, now: datetime) -> None:
        del self.keys[prefix]


class FakeCredentials:
    """Implements `Keys`, by which the API knows who calls."""

    def __init__(self, workspaces: FakeWorkspaces, api_keys: FakeApiKeys) -> None:
        self._workspaces = workspaces
        self._api_keys = api_keys

    def management_key(self, prefix: str) -> ManagementKey | None:
        return self._workspaces.management_key(prefix)

    def host_owner(self, host: str) -> str | None:
        return self._workspaces.host_owner(host)

    def developer_key_sha256(self, prefix: str) -> str | None:
        key = self._api_keys.find(prefix)
        return None if key is None else key.record.sha256


class FakeWebhooks:
    """Implements `Webhooks`."""

    def __init__(self) -> None:
        self.kept: dict[str, WebhookRecord] = {}

    def find(self, workspace_id: str) -> WebhookRecord | None:
        return self.kept.get(workspace_id)

    def save(self, webhook: WebhookRecord, now: datetime) -> None:
        self.kept[webhook.workspace_id] = webhook


class FakePriceLists:
    """Implements `PriceLists`."""

    def __init__(self) -> None:
        self.kept: dict[str, Prices] = {}

    def find(self, workspace_id: str) -> Prices:
        return self.kept.get(workspace_id, Prices(()))

    def save(self, workspace_id: str, prices: Prices, now: datetime) -> None:
        self.kept[workspace_id] = prices


class FakeAnswers:
    """Implements `Answers`."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[KeptAnswer, datetime]] = {}

    def find(self, name: str, now: datetime) -> KeptAnswer | None:
        answer, at = self.kept.get(name, (None, now))
        return answer if at > now - timedelta(hours=24) else None

    def keep(self, answer: KeptAnswer, now: datetime) -> None:
        self.kept[answer.name] = (answer, now)


@dataclass
class FakeStores:
    """All that a unit of work needs, in memory."""

    journal: FakeJournal = field(default_factory=FakeJournal)
    workspaces: FakeWorkspaces = field(default_factory=FakeWorkspaces)
    webhooks: FakeWebhooks = field(default_factory=FakeWebhooks)
    prices: FakePriceLists = field(default_factory=FakePriceLists)
    api_keys: FakeApiKeys = field(default_factory=FakeApiKeys)
    answers: FakeAnswers = field(default_factory=FakeAnswers)

    def __post_init__(self) -> None:
        self.endpoints = FakeEndpoints(self.workspaces)
        self.secrets = FakeSecrets(self.endpoints)
        self.groups = FakeGroups(self.api_keys)

    def unit(self, workspace_id: str = "w", now: datetime = NOW) -> UnitOfWork:
        """Return a unit of work over these stores."""
        return UnitOfWork(
            workspace_id=workspace_id,
            now=now,
            journal=self.journal,
            workspaces=self.workspaces,
            webhooks=self.webhooks,
            prices=self.prices,
            endpoints=self.endpoints,
            secrets=self.secrets,
            groups=self.groups,
            api_keys=self.api_keys,
            answers=self.answers,
        )


class FakeCorrections:
    """Implements `Corrections`; `events` are the ledger's."""

    def __init__(self, *events: UsageEvent) -> None:
        self.events = {one.idempotency_key: one for one in events}
        self.kept: list[UsageEvent] = []
        self.locked = False

    def lock(self) -> None:
        self.locked = True

    def made(self, key: str) -> UsageEvent | None:
        assert self.locked
        return next((one for one in self.kept if one.idempotency_key == key), None)

    def find(self, idempotency_key: str) -> UsageEvent | None:
        return self.events.get(idempotency_key)

    def corrected(self, idempotency_key: str) -> Tokens:
        assert self.locked
        tokens = [one.tokens for one in self.kept if one.corrects == idempotency_key]
        return Tokens(
            input_tokens=sum(one.input_tokens for one in tokens), output_tokens=sum(one.output_tokens for one in tokens)
        )

    def put(self, draft: UsageDraft, now: datetime) -> UsageEvent:
        producer = Producer(instance="database", sequence=len(self.kept) + 1)
        self.kept.append(UsageEvent(**dict(draft), producer=producer))
        return self.kept[-1]
