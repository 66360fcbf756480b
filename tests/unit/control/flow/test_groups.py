from dataclasses import replace
from typing import Any

import pytest

from control.core import rules
from control.core.records import StoredGroup
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow import groups
from runtime.config import records as config_records
from schemas.api import CreateGroup, UpdateGroup
from schemas.config import ConfigChange, ConfigKind
from tests.unit.control.fakes import NOW, FakeStores, serve

SLUG = "acme/m"


def stores() -> FakeStores:
    """Make the stores of a workspace that serves the slug."""
    made = FakeStores()
    serve(made.endpoints, SLUG)
    return made


def make_group(
    stored: FakeStores, name: str, threshold: int | None = None, parent: str | None = None, mode: str | None = None
) -> StoredGroup:
    body = {
        "metadata": {"external_entity_id": name},
        "models": [model(threshold)],
        "hierarchy": {"parent_group_id": parent, "limit_enforcement": mode},
    }
    return groups.create(stored.unit(), CreateGroup.model_validate(body))[0]


def model(threshold: int | None) -> dict[str, Any]:
    limits = [] if threshold is None else [{"type": "TOKEN", "unit": "DAY", "threshold": threshold}]
    return {"slug": SLUG, "usage_limits": limits}


def patch(stored: FakeStores, group: StoredGroup, **body: Any) -> StoredGroup:
    return groups.update(stored.unit(), group.record.id, UpdateGroup.model_validate(body))[0]


def test_a_group_keeps_calling_a_slug_whose_endpoint_is_gone() -> None:
    stored = stores()
    group = make_group(stored, "root", 5)
    serve(stored.endpoints)
    assert patch(stored, group, models=[model(6)]).record.models[0].usage_limits[0].threshold == 6
    patch(stored, group, models=[])
    with pytest.raises(InvalidError) as refusal:
        patch(stored, group, models=[model(6)])
    assert refusal.value.code == "unknown_slug"


def test_a_patch_keeps_what_it_does_not_name() -> None:
    stored = stores()
    group = make_group(stored, "root", 5)
    assert patch(stored, group, metadata={"name": "n"}).record == group.record
    assert patch(stored, group, models=[]).name == "n"
    assert patch(stored, group, metadata={"name": None}).name is None
    nothings: list[dict[str, Any]] = [{}, {"metadata": {}}, {"metadata": None}]
    for nothing in nothings:
        with pytest.raises(InvalidError, match="at least one"):
            patch(stored, group, **nothing)


@pytest.mark.parametrize("models", [[], None])
def test_a_patch_clears_what_a_group_lists(models: list[Any] | None) -> None:
    stored = stores()
    group = make_group(stored, "root", 5)
    assert group.record.models
    assert patch(stored, group, models=models).record.models == ()


def test_where_a_group_may_hang() -> None:
    stored = stores()
    parent: str | None = None
    for level in range(5):
        parent = make_group(stored, str(level), parent=parent).record.id
    with pytest.raises(InvalidError, match="at most 5 levels"):
        make_group(stored, "too deep", parent=parent)
    with pytest.raises(NotFoundError):
        make_group(stored, "lost", parent="nothing")
    with pytest.raises(InvalidError, match="external_entity_id"):
        make_group(stored, "0")
    cascading = make_group(stored, "cascading", mode="CASCADING").record
    assert make_group(stored, "same", parent=cascading.id, mode="CASCADING").record.ancestor_ids == (cascading.id,)
    with pytest.raises(InvalidError, match="limit_enforcement"):
        make_group(stored, "differs", parent=cascading.id, mode="INDEPENDENT")


def test_groups_of_other_workspaces() -> None:
    stored = stores()
    group = make_group(stored, "root").record
    with pytest.raises(ForbiddenError):
        groups.get(stored.unit("other"), group.id)
    with pytest.raises(NotFoundError):
        groups.get(stored.unit(), "nothing")
    body = CreateGroup.model_validate(
        {"metadata": {"external_entity_id": "c"}, "models": [model(1)], "hierarchy": {"parent_group_id": group.id}}
    )
    with pytest.raises(NotFoundError):
        groups.create(stored.unit("other"), body)


def test_a_deleted_group_takes_all_below_it() -> None:
    stored = stores()
    root = make_group(stored, "root")
    middle = make_group(stored, "middle", parent=root.record.id)
    make_group(stored, "leaf", parent=middle.record.id)
    stored.journal.notes.clear()
    with pytest.raises(ForbiddenError):
        groups.delete(stored.unit("other"), middle.record.id)
    gone = groups.delete(stored.unit(), middle.record.id)
    assert gone == middle
    assert list(stored.groups.kept) == [root.record.id]
    with pytest.raises(NotFoundError):
        groups.delete(stored.unit(), middle.record.id)
    assert stored.journal.actions == ["group.delete"]
    make_group(stored, "leaf", parent=root.record.id)


def test_changes_are_noted_with_what_was_before() -> None:
    stored = stores()
    group = make_group(stored, "root", 5)
    body = UpdateGroup.model_validate({"models": [model(6)]})
    stored.journal.notes.clear()
    groups.update(stored.unit(), group.record.id, body)
    ((workspace_id, action, subject, before, after),) = stored.journal.notes
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
    stored, allowed = stores(), many_models(rules.MAX_MODELS)
    serve(stored.endpoints, *(model["slug"] for model in many_models(rules.MAX_MODELS + 1)))
    body = {"metadata": {"external_entity_id": "\U0001f600" * 255}, "models": allowed}
    group = groups.create(stored.unit(), CreateGroup.model_validate(body))[0]
    change = ConfigChange(version=2**62, kind=ConfigKind.GROUP, id=group.record.id, record=group.record)
    assert len(config_records.of(change, NOW).value or b"") < 700_000

    too_many = many_models(rules.MAX_MODELS + 1)
    with pytest.raises(InvalidError, match="at most 1000 are allowed in one group, these are 1001") as refusal:
        patch(stored, group, models=too_many)
    assert (refusal.value.param, refusal.value.code) == ("models", "too_many_models")
    other = {"metadata": {"external_entity_id": "other"}, "models": too_many}
    with pytest.raises(InvalidError, match="at most 1000"):
        groups.create(stored.unit(), CreateGroup.model_validate(other))
    assert len(stored.groups.kept) == 1


def test_a_group_that_lists_more_from_earlier_can_still_be_renamed() -> None:
    stored = stores()
    group = make_group(stored, "root", 5)
    models = CreateGroup.model_validate(
        {"metadata": {"external_entity_id": "e"}, "models": many_models(rules.MAX_MODELS + 1)}
    ).models
    stored.groups.kept[group.record.id] = replace(group, record=group.record.model_copy(update={"models": models}))
    assert patch(stored, group, metadata={"name": "n"}).name == "n"
