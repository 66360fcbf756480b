from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from control.core import rules
from control.core.records import Group
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow import groups
from runtime.config import records as config_records
from schemas.api import CreateGroup, UpdateGroup
from schemas.config import ConfigChange, ConfigKind
from tests.unit.control.fakes import NOW, FakeEndpoints, FakeJournal, FakeTree, serving

SLUG = "acme/m"


def make_group(
    tree: FakeTree, name: str, threshold: int | None = None, parent: str | None = None, mode: str | None = None
) -> Group:
    body = {
        "metadata": {"external_entity_id": name},
        "models": [model(threshold)],
        "hierarchy": {"parent_group_id": parent, "limit_enforcement": mode},
    }
    wanted = CreateGroup.model_validate(body)
    return groups.create(tree, tree, serving(SLUG), FakeJournal(), workspace_id="w", body=wanted, now=NOW)[0]


def model(threshold: int | None) -> dict[str, Any]:
    limits = [] if threshold is None else [{"type": "TOKEN", "unit": "DAY", "threshold": threshold}]
    return {"slug": SLUG, "usage_limits": limits}


def patch(tree: FakeTree, group: Group, slugs: FakeEndpoints | None = None, **body: Any) -> Group:
    wanted = UpdateGroup.model_validate(body)
    named = slugs or serving(SLUG)
    chain = groups.update(
        tree, tree, named, FakeJournal(), workspace_id="w", group_id=group.record.id, body=wanted, now=NOW
    )
    return chain[0]


def test_a_group_keeps_calling_a_slug_whose_endpoint_is_gone() -> None:
    tree = FakeTree()
    group = make_group(tree, "root", 5)
    gone = serving()
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
    for level in range(5):
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
        groups.create(tree, tree, serving(SLUG), FakeJournal(), workspace_id="other", body=body, now=NOW)


def test_a_deleted_group_takes_all_below_it() -> None:
    tree, journal = FakeTree(), FakeJournal()
    root = make_group(tree, "root")
    middle = make_group(tree, "middle", parent=root.record.id)
    make_group(tree, "leaf", parent=middle.record.id)
    with pytest.raises(ForbiddenError):
        groups.delete(tree, tree, journal, workspace_id="other", group_id=middle.record.id, now=NOW)
    gone = groups.delete(tree, tree, journal, workspace_id="w", group_id=middle.record.id, now=NOW)
    assert gone == middle
    assert list(tree.kept) == [root.record.id]
    with pytest.raises(NotFoundError):
        groups.delete(tree, tree, journal, workspace_id="w", group_id=middle.record.id, now=NOW)
    assert journal.actions == ["group.delete"]
    make_group(tree, "leaf", parent=root.record.id)


def test_changes_are_noted_with_what_was_before() -> None:
    tree, journal = FakeTree(), FakeJournal()
    group = make_group(tree, "root", 5)
    body = UpdateGroup.model_validate({"models": [model(6)]})
    slugs = serving(SLUG)
    groups.update(tree, tree, slugs, journal, workspace_id="w", group_id=group.record.id, body=body, now=NOW)
    ((workspace_id, action, subject, before, after),) = journal.notes
    assert (workspace_id, action, subject) == ("w", "group.update", group.record.id)
    assert before is not None
    assert after is not None
    thresholds = [shown["models"][0]["usage_limits"][0]["threshold"] for shown in (before, after)]
    assert thresholds == [5, 6]


def many_models(count: int) -> list[dict[str, Any]]:
    """Return models with the longest slugs and every limit that one may have."""
    most = 2**53
    rates = [{"type": kind, "unit": "SECOND", "threshold": most} for kind in ("REQUEST", "TOKEN")]
    usages = [{"type": kind, "unit": "DAY", "threshold": most} for kind in ("REQUEST", "TOKEN")]
    slugs = [f"acme/{number:0250}" for number in range(count)]
    return [{"slug": slug, "rate_limits": rates, "usage_limits": usages} for slug in slugs]


def test_a_group_whose_record_the_other_processes_could_not_get_is_refused() -> None:
    tree, allowed = FakeTree(), many_models(rules.MAX_MODELS)
    slugs = serving(*(model["slug"] for model in many_models(rules.MAX_MODELS + 1)))
    body = {"metadata": {"external_entity_id": "\U0001f600" * 255}, "models": allowed}
    make = partial(groups.create, tree, tree, slugs, FakeJournal(), workspace_id="w", now=NOW)
    group = make(body=CreateGroup.model_validate(body))[0]
    change = ConfigChange(version=2**62, kind=ConfigKind.GROUP, id=group.record.id, record=group.record)
    assert len(config_records.of(change, NOW).value or b"") < 700_000

    too_many = many_models(rules.MAX_MODELS + 1)
    with pytest.raises(InvalidError, match="at most 1000 are allowed in one group, these are 1001") as refusal:
        patch(tree, group, slugs, models=too_many)
    assert (refusal.value.param, refusal.value.code) == ("models", "too_many_models")
    other = {"metadata": {"external_entity_id": "other"}, "models": too_many}
    with pytest.raises(InvalidError, match="at most 1000"):
        make(body=CreateGroup.model_validate(other))
    assert len(tree.kept) == 1


def test_a_group_that_lists_more_from_earlier_can_still_be_renamed() -> None:
    tree = FakeTree()
    group = make_group(tree, "root", 5)
    models = CreateGroup.model_validate(
        {"metadata": {"external_entity_id": "e"}, "models": many_models(rules.MAX_MODELS + 1)}
    ).models
    tree.kept[group.record.id] = replace(group, record=group.record.model_copy(update={"models": models}))
    assert patch(tree, group, metadata={"name": "n"}).name == "n"
