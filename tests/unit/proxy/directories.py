"""The real directory, and the changes of the configuration that tests feed it."""

from datetime import UTC, datetime
from typing import Any

from domain.sealing import secret_context
from proxy.core import targets
from proxy.core.calls import Key, Route
from proxy.directory import Directory
from schemas.config import (
    ConfigChange,
    ConfigKind,
    ConfigRecord,
    EndpointRecord,
    GroupRecord,
    KeyRecord,
    SecretRecord,
    WorkspaceRecord,
    WorkspaceState,
)
from schemas.limits import LimitEnforcement, LimitType, ModelConfig, RateLimitUnit, UsageLimit, UsageLimitUnit
from schemas.limits import RateLimit as SetRateLimit
from schemas.targets import Provider, Target
from tests.unit.proxy import kit

OPERATORS = "the operator's own"
PLACES = targets.ProviderUrls(
    anthropic="https://anthropic.example",
    vertex=None,
    openai="https://openai.example/v1",
    baseten="https://model-{model_id}.example/environments/{environment_name}/sync/v1",
    baseten_model="https://model-{model_id}.own.example/environments/{environment_name}",
    baseten_model_api="https://models.example/v1",
    baseten_credential=OPERATORS,
)
PREFIX = "sky_abcdefghijkl"
SHA256 = "ab" * 32
MADE = datetime(2025, 1, 2, tzinfo=UTC)
TREE = ("child", "middle", "root")
_KINDS = {
    WorkspaceRecord: ConfigKind.WORKSPACE,
    EndpointRecord: ConfigKind.ENDPOINT,
    GroupRecord: ConfigKind.GROUP,
    KeyRecord: ConfigKind.KEY,
    SecretRecord: ConfigKind.SECRET,
}


def workspace(
    state: WorkspaceState = WorkspaceState.ACTIVE, id_: str = "ws", *, operator_credential: bool = False
) -> WorkspaceRecord:
    return WorkspaceRecord(id=id_, name="lab", state=state, operator_credential=operator_credential)


def endpoint(id_: str = "e1", slug: str = "lab/a", workspace_id: str = "ws", **target: Any) -> EndpointRecord:
    compatible = {"base_url": "https://up.example/v1", "target_model": "theirs"}
    made = Target(**({"provider": Provider.OPENAI_COMPATIBLE} | compatible | target))
    return EndpointRecord(id=id_, workspace_id=workspace_id, slug=slug, target=made, created_at=MADE)


def group(id_: str, *models: ModelConfig, tree: tuple[str, ...] = TREE, **changes: Any) -> GroupRecord:
    ancestors = tree[tree.index(id_) + 1 :]
    facts: dict[str, Any] = {
        "id": id_,
        "workspace_id": "ws",
        "external_entity_id": f"customer {id_}",
        "parent_group_id": ancestors[0] if ancestors else None,
        "ancestor_ids": ancestors,
        "limit_enforcement": LimitEnforcement.INDEPENDENT,
        "models": models,
    }
    return GroupRecord(**(facts | changes))


def key(group_id: str = "child", workspace_id: str = "ws") -> KeyRecord:
    return KeyRecord(prefix=PREFIX, workspace_id=workspace_id, group_id=group_id, sha256=SHA256)


def secret(value: str = "sk-1", id_: str = "s1", workspace_id: str = "ws") -> SecretRecord:
    sealed = kit.VAULT.seal(value, secret_context(workspace_id, id_))
    return SecretRecord(id=id_, workspace_id=workspace_id, sealed=sealed)


def model(slug: str = "lab/a", day: int | None = None, minute: int | None = None) -> ModelConfig:
    request = LimitType.REQUEST
    days = () if day is None else (UsageLimit(type=request, unit=UsageLimitUnit.DAY, threshold=day),)
    rates = () if minute is None else (SetRateLimit(type=request, unit=RateLimitUnit.MINUTE, threshold=minute),)
    return ModelConfig(slug=slug, usage_limits=days, rate_limits=rates)


def change(version: int, record: ConfigRecord) -> ConfigChange:
    id_ = record.prefix if isinstance(record, KeyRecord) else getattr(record, "id")  # noqa: B009 - no base has one
    return ConfigChange(version=version, kind=_KINDS[type(record)], id=id_, record=record)


def end(version: int, kind: ConfigKind, id_: str) -> ConfigChange:
    return ConfigChange(version=version, kind=kind, id=id_, record=None)


def empty() -> Directory:
    """Return a directory that holds nothing yet."""
    return Directory(PLACES, kit.VAULT)


def directory(*records: ConfigRecord) -> Directory:
    """Return a directory of a workspace, an endpoint, a tree whose root lists it, and a key; `records` on top."""
    made = empty()
    house = (workspace(), endpoint(), group("root", model()), group("middle"), group("child"), key())
    for version, record in enumerate((*house, *records), 1):
        made.apply(change(version, record))
    return made


def the_key(made: Directory) -> Key:
    found = made.key(PREFIX)
    assert found is not None
    return found


def the_route(made: Directory, slug: str = "lab/a") -> Route:
    found = made.route(the_key(made), slug)
    assert isinstance(found, Route)
    return found
