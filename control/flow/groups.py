"""Groups: hanging one into its tree, changing it, deleting it, looking one up (contract 2.2).

Never leaves a tree in which a CASCADING group is above an ancestor.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

from control.core import audit_view, bodies, fixed, preconditions, rules
from control.core.records import Chain, StoredGroup
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.unit_of_work import UnitOfWork
from domain import limit_tree
from runtime import ids
from schemas.api import CreateGroup, CreateGroupHierarchy, UpdateGroup
from schemas.config import GroupRecord
from schemas.limits import ANY_SLUG, LimitEnforcement, ModelConfig

ABOVE_PARENT = "Child group exceeds parent group limit."


def create(unit: UnitOfWork, body: CreateGroup) -> Chain:
    """Make a group; return it and its way to the root. Raise InvalidError or NotFoundError."""
    parents = _parents(unit, body.hierarchy.parent_group_id)
    external_entity_id = body.metadata.external_entity_id
    owner = unit.groups.external_id_owner(unit.workspace_id, external_entity_id)
    if owner is not None:
        raise InvalidError(
            f"metadata.external_entity_id: the group {owner} of this workspace has it already",
            param="metadata.external_entity_id",
            code="external_entity_id_taken",
        )
    record = GroupRecord(
        id=ids.mint(),
        workspace_id=unit.workspace_id,
        external_entity_id=external_entity_id,
        parent_group_id=parents[0].record.id if parents else None,
        ancestor_ids=tuple(parent.record.id for parent in parents),
        limit_enforcement=_mode(body.hierarchy, parents),
        models=body.models,
    )
    rules.check_models(body.models)
    _check_slugs(unit, body.models, known=())
    _check_cascade(record, parents)
    group = StoredGroup(record=record, name=body.metadata.name, created_at=unit.now, updated_at=unit.now)
    unit.groups.add(group)
    unit.journal.note(unit.workspace_id, "group.create", record.id, after=audit_view.group(group))
    return (group, *parents)


def update(unit: UnitOfWork, group_id: str, body: UpdateGroup) -> Chain:
    """Change a group's name, models or both; return it and its way to the root. Raise RefusalError."""
    before, *parents = chain = get(unit, group_id)
    shown = bodies.group(chain)
    preconditions.check(unit.if_match, shown)
    fixed.check(body, shown, free={"metadata.name", "models", "updated_at"})
    group = replace(before, updated_at=unit.now)
    renamed = body.metadata is not None and "name" in body.metadata.model_fields_set
    if not renamed and "models" not in body.model_fields_set:
        raise InvalidError("metadata.name, models: at least one of the two is required", code="nothing_to_change")
    if renamed and body.metadata is not None:
        group = replace(group, name=body.metadata.name)
    if "models" in body.model_fields_set:
        models = body.models or ()
        rules.check_models(models)
        known = {model.slug for model in group.record.models}
        _check_slugs(unit, models, known)
        record = group.record.model_copy(update={"models": models})
        _check_cascade(record, parents)
        _check_below(unit, record, before.record)
        group = replace(group, record=record)
    unit.groups.replace(group, before)
    was, is_ = audit_view.difference(audit_view.group(before), audit_view.group(group))
    unit.journal.note(unit.workspace_id, "group.update", group_id, before=was, after=is_)
    return (group, *parents)


def delete(unit: UnitOfWork, group_id: str) -> StoredGroup:
    """Delete a group and everything below it; return what it was. Raise NotFoundError or ForbiddenError."""
    chain = get(unit, group_id)
    preconditions.check(unit.if_match, bodies.group(chain))
    group = chain[0]
    unit.groups.remove(group, unit.now)
    unit.journal.note(unit.workspace_id, "group.delete", group_id, before=audit_view.group(group))
    return group


def get(unit: UnitOfWork, group_id: str) -> Chain:
    """Return one of the workspace's groups and its way to the root. Raise NotFoundError or ForbiddenError."""
    chain = unit.groups.chain(group_id)
    if not chain:
        raise NotFoundError("group_id: no group has this id", param="group_id", code="not_found")
    if chain[0].record.workspace_id != unit.workspace_id:
        raise ForbiddenError("group_id: belongs to another workspace", param="group_id", code="other_workspace")
    return chain


def _parents(unit: UnitOfWork, parent_group_id: str | None) -> Chain:
    if parent_group_id is None:
        return ()
    parents = unit.groups.chain(parent_group_id)
    param = "hierarchy.parent_group_id"
    if not parents or parents[0].record.workspace_id != unit.workspace_id:
        raise NotFoundError(f"{param}: must be null or a group of this workspace", param=param, code="not_found")
    if len(parents) >= limit_tree.MAX_LEVELS:
        raise InvalidError(
            f"{param}: a tree has at most {limit_tree.MAX_LEVELS} levels", param=param, code="tree_too_deep"
        )
    return parents


def _mode(wanted: CreateGroupHierarchy, parents: Chain) -> LimitEnforcement:
    if not parents:
        return wanted.limit_enforcement or LimitEnforcement.INDEPENDENT
    inherited = parents[0].record.limit_enforcement
    if wanted.limit_enforcement not in {None, inherited}:
        raise InvalidError(
            f"hierarchy.limit_enforcement: must be its parent's, {inherited}, or left out",
            param="hierarchy.limit_enforcement",
            code="limit_enforcement_differs",
        )
    return inherited


def _check_slugs(unit: UnitOfWork, models: Sequence[ModelConfig], known: Collection[str]) -> None:
    named = [model.slug for model in models if model.slug not in known and model.slug != ANY_SLUG]
    missing = unit.endpoints.missing(unit.workspace_id, named)
    if missing:
        index = next(at for at, model in enumerate(models) if model.slug == missing[0])
        param = f"models[{index}].slug"
        raise InvalidError(f"{param}: must name an endpoint of this workspace", param=param, code="unknown_slug")


def _check_cascade(record: GroupRecord, parents: Chain) -> None:
    """Refuse a group that is above one of its ancestors."""
    if not _cascades(record):
        return
    for parent in parents:
        above = rules.exceeds(record.models, parent.record.models)
        if above is not None:
            raise _above(f"{above} of its ancestor, group {parent.record.id}")


def _check_below(unit: UnitOfWork, record: GroupRecord, before: GroupRecord) -> None:
    """Refuse a change that would leave a group below this one above it; only what the change lowers can."""
    lowered = rules.lowered(record.models, before.models) if _cascades(record) else ()
    if not lowered:
        return
    allowed = rules.thresholds(lowered)
    for below in list(unit.groups.below(record.id, {model.slug for model in lowered})):  # to its end: a cursor is open
        above = rules.exceeds_any({below.place: below.threshold}, allowed)
        if above is not None:
            raise _above(f"{above} of group {below.group_id} of its ancestor, group {record.id}")


def _above(said: str) -> InvalidError:
    return InvalidError(f"{ABOVE_PARENT} {said}", param="models", code="limit_exceeds_parent")


def _cascades(record: GroupRecord) -> bool:
    return record.limit_enforcement is LimitEnforcement.CASCADING
