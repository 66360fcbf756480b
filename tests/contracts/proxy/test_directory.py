"""What every `Directory` adapter must do (contract 2.2, 3)."""

import hashlib
from collections.abc import Callable

import pytest

from proxy.admission import Directory as Port
from proxy.core.calls import Key, Route
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
from schemas.limits import LimitEnforcement, LimitType, ModelConfig, RateLimit, RateLimitUnit
from schemas.targets import Provider, Target
from tests.unit.proxy import directories, fakes, kit

OTHER_SLUG = "lab/other"


TOKENS = kit.rate(LimitType.TOKEN, 10**9)
PARENTS = (kit.PARENT,)
ROUTES = {
    LimitEnforcement.CASCADING: kit.route(parent_groups=PARENTS),
    LimitEnforcement.INDEPENDENT: kit.independent(kit.ROOMY[0], TOKENS, parent_groups=PARENTS),
}


def fake(enforcement: LimitEnforcement) -> Port:
    """Return one key that may call one slug."""
    return fakes.FakeDirectory({kit.key().prefix: kit.key()}, {(kit.GROUP, kit.SLUG): ROUTES[enforcement]})


def group(id_: str, ancestor_ids: tuple[str, ...], limit: RateLimit, enforcement: LimitEnforcement) -> GroupRecord:
    return GroupRecord(
        id=id_,
        workspace_id=kit.WORKSPACE,
        external_entity_id=kit.route().external_entity_id,
        parent_group_id=ancestor_ids[0] if ancestor_ids else None,
        ancestor_ids=ancestor_ids,
        limit_enforcement=enforcement,
        models=(ModelConfig(slug=kit.SLUG, rate_limits=(limit,)),),
    )


def real(enforcement: LimitEnforcement) -> Port:
    """Return the same, by changes of the configuration."""
    requests = RateLimit(type=LimitType.REQUEST, unit=RateLimitUnit.MINUTE, threshold=kit.ROOMY[0].threshold)
    tokens = RateLimit(type=LimitType.TOKEN, unit=RateLimitUnit.MINUTE, threshold=TOKENS.threshold)
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
        kit.PARENT: (ConfigKind.GROUP, group(kit.PARENT, (), tokens, enforcement)),
        kit.GROUP: (ConfigKind.GROUP, group(kit.GROUP, (kit.PARENT,), requests, enforcement)),
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


@pytest.fixture(params=LimitEnforcement)
def enforcement(request: pytest.FixtureRequest) -> LimitEnforcement:
    return LimitEnforcement(request.param)


@pytest.fixture
def route(enforcement: LimitEnforcement) -> Route:
    return ROUTES[enforcement]


@pytest.fixture(params=[fake, real])
def adapter(request: pytest.FixtureRequest, enforcement: LimitEnforcement) -> Port:
    make: Callable[[LimitEnforcement], Port] = request.param
    return make(enforcement)


def the_key(adapter: Port) -> Key:
    found = adapter.key(kit.key().prefix)
    assert found is not None
    return found


def test_a_key_by_its_prefix(adapter: Port) -> None:
    assert the_key(adapter) == kit.key()
    assert adapter.key("sky_unknown") is None
    assert adapter.key("") is None


def test_a_route_by_group_and_slug(adapter: Port, route: Route) -> None:
    assert adapter.route(the_key(adapter), kit.SLUG) == route
    assert adapter.route(the_key(adapter), OTHER_SLUG) is None


def test_what_a_key_may_call(adapter: Port) -> None:
    assert [(model.slug, model.created_at) for model in adapter.models(the_key(adapter))] == [(kit.SLUG, kit.NOW)]
