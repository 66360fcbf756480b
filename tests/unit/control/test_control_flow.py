from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control import credentials
from control.core import rules
from control.core.records import Group
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError, RefusalError
from control.flow import api_keys, endpoints, groups, workspaces
from metering.core import hierarchy
from runtime.vault import Vault
from schemas.api import CreateApiKey, CreateEndpoint, CreateGroup, UpdateGroup
from schemas.config import WorkspaceState
from tests.unit.control.fakes import (
    NOW,
    FakeApiKeys,
    FakeEndpoints,
    FakeSlugs,
    FakeTree,
    FakeWebhooks,
    FakeWorkspaces,
)

SLUG = "acme/m"


def endpoint_body(**target: Any) -> CreateEndpoint:
    given_target = {"provider": "OPENAI_COMPATIBLE", "base_url": "https://up.example/v1/", "target_model": "m"} | target
    return CreateEndpoint.model_validate({"slug": SLUG, "targets": [given_target]})


def make_endpoint(kept: FakeEndpoints, **target: Any) -> str:
    return endpoints.create(kept, "w", endpoint_body(**target), NOW, allow_private=False).record.id


def test_an_endpoint_is_kept_with_the_fields_that_were_set() -> None:
    kept = FakeEndpoints({"acme": "w"})
    endpoint = endpoints.get(kept, "w", make_endpoint(kept, secret_id=None))
    assert endpoint.record.target.model_fields_set == {"provider", "base_url", "target_model"}
    assert endpoint.record.target.base_url == "https://up.example/v1"
    with pytest.raises(ForbiddenError):
        endpoints.get(kept, "other", endpoint.record.id)
    with pytest.raises(NotFoundError):
        endpoints.get(kept, "w", "nothing")


@pytest.mark.parametrize(
    ("target", "param"),
    [
        ({"base_url": None}, "targets[0].base_url"),
        ({"base_url": "///"}, "targets[0].base_url"),
        ({"base_url": "https://10.0.0.1"}, "targets[0].base_url"),
        ({"target_model": None}, "targets[0].target_model"),
        ({"secret_id": "s"}, "targets[0].secret_id"),
    ],
)
def test_a_wrong_target_is_refused_by_its_field(target: dict[str, Any], param: str) -> None:
    kept = FakeEndpoints({"acme": "w"})
    with pytest.raises(InvalidError) as refusal:
        make_endpoint(kept, **target)
    assert refusal.value.param == param
    assert not kept.kept


def test_a_slug_needs_its_prefix_and_is_unique() -> None:
    with pytest.raises(InvalidError) as refusal:
        make_endpoint(FakeEndpoints({"acme": "other"}))
    assert refusal.value.code == "org_prefix"
    kept = FakeEndpoints({"acme": "w"})
    make_endpoint(kept)
    with pytest.raises(InvalidError) as refusal:
        make_endpoint(kept)
    assert refusal.value.code == "slug_taken"


def make_group(
    tree: FakeTree, name: str, threshold: int | None = None, parent: str | None = None, mode: str | None = None
) -> Group:
    body = {
        "metadata": {"external_entity_id": name},
        "models": [model(threshold)],
        "hierarchy": {"parent_group_id": parent, "limit_enforcement": mode},
    }
    wanted = CreateGroup.model_validate(body)
    return groups.create(tree, tree, FakeSlugs(SLUG), workspace_id="w", body=wanted, now=NOW)[0]


def model(threshold: int | None) -> dict[str, Any]:
    limits = [] if threshold is None else [{"type": "TOKEN", "unit": "DAY", "threshold": threshold}]
    return {"slug": SLUG, "usage_limits": limits}


def patch(tree: FakeTree, group: Group, slugs: FakeSlugs | None = None, **body: Any) -> Group:
    wanted = UpdateGroup.model_validate(body)
    named = slugs or FakeSlugs(SLUG)
    chain = groups.update(tree, tree, named, workspace_id="w", group_id=group.record.id, body=wanted, now=NOW)
    return chain[0]


def test_a_group_keeps_calling_a_slug_whose_endpoint_is_gone() -> None:
    tree = FakeTree()
    group = make_group(tree, "root", 5)
    gone = FakeSlugs()
    assert patch(tree, group, gone, models=[model(6)]).record.models[0].usage_limits[0].threshold == 6
    patch(tree, group, gone, models=[])
    with pytest.raises(InvalidError) as refusal:
        patch(tree, group, gone, models=[model(6)])
    assert refusal.value.code == "unknown_slug"


def test_a_patch_keeps_what_it_does_not_name() -> None:
    tree = FakeTree()
    group = make_group(tree, "root", 5)
    assert patch(tree, group, metadata={"name": "n"}).record == group.record
    assert patch(tree, group, models=[]).name == "n"
    assert patch(tree, group, metadata={"name": None}).name is None
    nothings: list[dict[str, Any]] = [{}, {"metadata": {}}, {"metadata": None, "models": None}]
    for nothing in nothings:
        with pytest.raises(InvalidError, match="at least one"):
            patch(tree, group, **nothing)


def test_where_a_group_may_hang() -> None:
    tree = FakeTree()
    parent: str | None = None
    for level in range(hierarchy.MAX_LEVELS):
        parent = make_group(tree, str(level), parent=parent).record.id
    with pytest.raises(InvalidError, match="at most 5 levels"):
        make_group(tree, "too deep", parent=parent)
    with pytest.raises(NotFoundError):
        make_group(tree, "lost", parent="nothing")
    with pytest.raises(InvalidError, match="external_entity_id"):
        make_group(tree, "0")
    cascading = make_group(tree, "cascading", mode="CASCADING").record
    assert make_group(tree, "same", parent=cascading.id, mode="CASCADING").record.ancestor_ids == (cascading.id,)
    with pytest.raises(InvalidError, match="limit_enforcement"):
        make_group(tree, "differs", parent=cascading.id, mode="INDEPENDENT")


def test_groups_of_other_workspaces() -> None:
    tree = FakeTree()
    group = make_group(tree, "root").record
    with pytest.raises(ForbiddenError):
        groups.get(tree, "other", group.id)
    with pytest.raises(NotFoundError):
        groups.get(tree, "w", "nothing")
    body = CreateGroup.model_validate(
        {"metadata": {"external_entity_id": "c"}, "models": [model(1)], "hierarchy": {"parent_group_id": group.id}}
    )
    with pytest.raises(NotFoundError):
        groups.create(tree, tree, FakeSlugs(SLUG), workspace_id="other", body=body, now=NOW)


STEPS = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from(["make", "patch"]), st.none() | st.integers(1, 4)), max_size=30
)


@given(STEPS)
def test_no_sequence_of_changes_leaves_a_group_above_an_ancestor(
    steps: list[tuple[int, str, int | None]],
) -> None:
    tree = FakeTree()
    made = [make_group(tree, "root", 3, mode="CASCADING").record.id]
    refused = accepted = 0
    for number, (at, what, threshold) in enumerate(steps):
        chosen = made[at % len(made)]
        try:
            if what == "make":
                made.append(make_group(tree, str(number), threshold, parent=chosen).record.id)
            else:
                patch(tree, tree.kept[chosen], models=[model(threshold)])
            accepted += 1
        except InvalidError:
            refused += 1
        for group_id in made:
            own, *ancestors = tree.chain(group_id)
            assert not any(rules.exceeds(own.record.models, above.record.models) for above in ancestors)
    assert accepted + refused == len(steps)


def test_a_key_is_minted_for_its_group_alone() -> None:
    keys = FakeApiKeys()
    minted = api_keys.mint(keys, "w", "g", CreateApiKey(name="n"), NOW)
    kept = api_keys.get(keys, "g", minted.prefix)
    assert kept.record.sha256 == credentials.digest(minted.api_key)
    assert minted.api_key not in repr(kept)
    for group_id, prefix in (("other", minted.prefix), ("g", "nothing")):
        with pytest.raises(NotFoundError):
            api_keys.get(keys, group_id, prefix)


class Onboarding:
    def __init__(self) -> None:
        self.workspaces = FakeWorkspaces()
        self.webhooks = FakeWebhooks()
        self.vault = Vault(bytes(32))

    def create(self, name: str = "lab", org_prefix: str = "Acme") -> workspaces.Onboarded:
        return workspaces.create(
            self.workspaces,
            self.webhooks,
            self.vault,
            NOW,
            name=name,
            org_prefix=org_prefix,
            operator_credential=True,
        )

    def set_webhook(self, url: str | None, enabled: bool = True) -> None:
        workspaces.set_webhook(
            self.workspaces, self.webhooks, NOW, workspace="lab", url=url, enabled=enabled, allow_private=False
        )


def test_a_lab_is_onboarded_whole() -> None:
    desk = Onboarding()
    told = desk.create()
    workspace = workspaces.get(desk.workspaces, "lab")
    assert (workspace.id, workspace.state, workspace.operator_credential) == (
        told.workspace_id,
        WorkspaceState.ACTIVE,
        True,
    )
    assert desk.workspaces.prefix_owner("ACME") == workspace.id
    assert credentials.matches(told.api_key, desk.workspaces.keys[0].sha256)
    (sealed,) = desk.webhooks.kept[workspace.id].secrets
    assert desk.vault.open(sealed.sealed, f"webhook:{workspace.id}") == told.webhook_secret


@pytest.mark.parametrize(("name", "prefix"), [("lab", "new"), ("new", "aCME"), ("", "new"), ("new", "")])
def test_a_second_lab_needs_its_own_name_and_prefix(name: str, prefix: str) -> None:
    desk = Onboarding()
    desk.create()
    with pytest.raises(RefusalError):
        desk.create(name, prefix)
    assert len(desk.workspaces.kept) == 1


def test_a_webhook_keeps_its_url_and_secret_while_it_is_disabled() -> None:
    desk = Onboarding()
    workspace_id = desk.create().workspace_id
    desk.set_webhook("https://hooks.example/in")
    before = desk.webhooks.kept[workspace_id]
    desk.set_webhook(None, enabled=False)
    assert desk.webhooks.kept[workspace_id] == before.model_copy(update={"enabled": False})
    with pytest.raises(InvalidError, match="url"):
        desk.set_webhook("http://hooks.example/in")
    desk.webhooks.kept.clear()
    with pytest.raises(NotFoundError):
        desk.set_webhook(None)


def test_a_state_that_is_so_already_is_no_change() -> None:
    desk = Onboarding()
    desk.create()
    for state in (WorkspaceState.SUSPENDED, WorkspaceState.SUSPENDED, WorkspaceState.ACTIVE):
        assert workspaces.set_state(desk.workspaces, NOW, "lab", state).state is state
    assert desk.workspaces.changes == 2
    for name in ("nobody", "a\udcff"):
        with pytest.raises(NotFoundError):
            workspaces.get(desk.workspaces, name)
