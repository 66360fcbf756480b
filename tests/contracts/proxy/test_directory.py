"""What every `Directory` adapter must do (spec 2.2, 3)."""

import hashlib
from collections.abc import Callable

import pytest

from proxy.admission import Directory as Port
from proxy.core.exchange import Key
from schemas.config import (
    ConfigChange,
    ConfigKind,
    ConfigRecord,
    EndpointRecord,
    GroupRecord,
    KeyRecord,
    WorkspaceRecord,
    WorkspaceState,
)
from schemas.limits import LimitEnforcement, ModelConfig
from schemas.targets import Provider, Target
from tests.unit.proxy import directories, kit

OTHER_SLUG = "lab/other"


def fake() -> Port:
    """Give one key that may call one slug."""
    return kit.FakeDirectory({kit.key().prefix: kit.key()}, {(kit.GROUP, kit.SLUG): kit.route()})


def real() -> Port:
    """Give the same, by changes of the configuration."""
    target = Target(
        provider=Provider.OPENAI_COMPATIBLE, base_url="https://up.example/v1", target_model=kit.route().target_model
    )
    records: dict[str, tuple[ConfigKind, ConfigRecord]] = {
        kit.WORKSPACE: (
            ConfigKind.WORKSPACE,
            WorkspaceRecord(id=kit.WORKSPACE, name="lab", state=WorkspaceState.ACTIVE, operator_credential=False),
        ),
        "e1": (
            ConfigKind.ENDPOINT,
            EndpointRecord(id="e1", workspace_id=kit.WORKSPACE, slug=kit.SLUG, target=target, created_at=kit.NOW),
        ),
        kit.GROUP: (
            ConfigKind.GROUP,
            GroupRecord(
                id=kit.GROUP,
                workspace_id=kit.WORKSPACE,
                external_entity_id=kit.route().external_entity_id,
                parent_group_id=None,
                ancestor_ids=(),
                limit_enforcement=LimitEnforcement.INDEPENDENT,
                models=(ModelConfig(slug=kit.SLUG),),
            ),
        ),
        kit.key().prefix: (
            ConfigKind.KEY,
            KeyRecord(
                prefix=kit.key().prefix,
                workspace_id=kit.WORKSPACE,
                group_id=kit.GROUP,
                sha256=hashlib.sha256(kit.TEXT_KEY).hexdigest(),
            ),
        ),
    }
    directory = directories.empty()
    for version, (id_, (kind, record)) in enumerate(records.items(), 1):
        directory.apply(ConfigChange(version=version, kind=kind, id=id_, record=record))
    return directory


@pytest.fixture(params=[fake, real])
def adapter(request: pytest.FixtureRequest) -> Port:
    make: Callable[[], Port] = request.param
    return make()


def the_key(adapter: Port) -> Key:
    found = adapter.key(kit.key().prefix)
    assert found is not None
    return found


def test_a_key_by_its_prefix(adapter: Port) -> None:
    assert the_key(adapter) == kit.key()
    assert adapter.key("sky_unknown") is None
    assert adapter.key("") is None


def test_a_route_by_group_and_slug(adapter: Port) -> None:
    assert adapter.route(the_key(adapter), kit.SLUG) == kit.route()
    assert adapter.route(the_key(adapter), OTHER_SLUG) is None


def test_what_a_key_may_call(adapter: Port) -> None:
    assert [(model.slug, model.created_at) for model in adapter.models(the_key(adapter))] == [(kit.SLUG, kit.NOW)]
