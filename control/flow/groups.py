"""Groups: hanging one into its tree, changing it, deleting it, looking one up (contract 2.2).

Never leaves a tree in which a CASCADING group is above an ancestor: that is judged in the change's own transaction.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from control.core import audit_view, rules
from control.core.records import Chain, Group
from control.core.refusals import ForbiddenError, InvalidError, NotFoundError
from control.flow.journal import Journal
from domain import limit_tree
from runtime import ids
from schemas.api import CreateGroup, CreateGroupHierarchy, UpdateGroup
from schemas.config import GroupRecord
from schemas.limits import LimitEnforcement, ModelConfig

ABOVE_PARENT = "Child group exceeds parent group limit."


class Tree(Protocol):
    """The live groups of all workspaces."""

    def chain(self, group_id: str) -> Chain:
        """Return the live group and its way to the root; empty where there is none."""

    def descendants(self, group_id: str) -> Sequence[Group]:
        """Return every live group below it."""

    def external_id_taken(self, workspace_id: str, external_entity_id: str) -> bool:
        """Tell whether a live group of the workspace has this id."""


class Changes(Protocol):
    """Keeps what was decided and tells the other processes."""

    def add(self, group: Group) -> None:
        """Keep a new group."""

    def replace(self, group: Group, now: datetime) -> None:
        """Keep the new name and models of a group."""

    def remove(self, group: Group, now: datetime) -> None:
        """Forget a group and all below it, revoke their keys, and tell the other processes."""


class Slugs(Protocol):
    """The endpoints, as groups name them."""

    def missing(self, workspace_id: str, slugs: Iterable[str]) -> Sequence[str]:
        """Return those slugs that name no endpoint of the workspace, in their order."""


def create(
    tree: Tree,
    changes: Changes,
    slugs: Slugs,
    journal: Journal,
    *,
    workspace_id: str,
    body: CreateGroup,
    now: datetime,
) -> tuple[Group, ...]:
    """Make a group; return it and its way to the root. Raise InvalidError or NotFoundError."""
    parents = _parents(tree, workspace_id, body.hierarchy.parent_group_id)
    external_entity_id = body.metadata.external_entity_id
    if tree.external_id_taken(workspace_id, external_entity_id):
        raise InvalidError(
            "metadata.external_entity_id: a group of this workspace has it already",
            param="metadata.external_entity_id",
            code="external_entity_id_taken",
        )
    record = GroupRecord(
        id=ids.mint(),
        workspace_id=workspace_id,
        external_entity_id=external_entity_id,
        parent_group_id=parents[0].record.id if parents else None,
        ancestor_ids=tuple(parent.record.id for parent in parents),
        limit_enforcement=_mode(body.hierarchy, parents),
        models=body.models,
    )
    rules.check_models(body.models)
    _check_slugs(slugs, workspace_id, body.models, known=())
    _check_cascade(record, parents, descendants=())
    group = Group(record=record, name=body.metadata.name, created_at=now)
    changes.add(group)
    journal.note(workspace_id, "group.create", record.id, after=audit_view.group(group))
    return (group, *parents)


def update(
    tree: Tree,
    changes: Changes,
    slugs: Slugs,
    journal: Journal,
    *,
    workspace_id: str,
    group_id: str,
    body: UpdateGroup,
    now: datetime,
) -> tuple[Group, ...]:
    """Change a group's name, models or both; return it and its way to the root. Raise RefusalError."""
    before, *parents = get(tree, workspace_id, group_id)
    group = before
    renamed = body.metadata is not None and "name" in body.metadata.model_fields_set
    if not renamed and body.models is None:
        raise InvalidError("metadata.name, models: at least one of the two is required", code="nothing_to_change")
    if renamed and body.metadata is not None:
        group = replace(group, name=body.metadata.name)
    if body.models is not None:
        rules.check_models(body.models)
        known = {model.slug for model in group.record.models}
        _check_slugs(slugs, workspace_id, body.models, known)
        record = group.record.model_copy(update={"models": body.models})
        _check_cascade(record, parents, tree.descendants(group_id) if _cascades(record) else ())
        group = replace(group, record=record)
    changes.replace(group, now)
    journal.note(workspace_id, "group.update", group_id, before=audit_view.group(before), after=audit_view.group(group))
    return (group, *parents)


def delete(tree: Tree, changes: Changes, journal: Journal, *, workspace_id: str, group_id: str, now: datetime) -> Group:
    """Delete a group and everything below it; return what it was. Raise NotFoundError or ForbiddenError."""
    group = get(tree, workspace_id, group_id)[0]
    changes.remove(group, now)
    journal.note(workspace_id, "group.delete", group_id, before=audit_view.group(group))
    return group


def get(tree: Tree, workspace_id: str, group_id: str) -> Chain:
    """Return one of the workspace's groups and its way to the root. Raise NotFoundError or ForbiddenError."""
    chain = tree.chain(group_id)
    if not chain:
        raise NotFoundError("group_id: no group has this id", param="group_id", code="not_found")
    if chain[0].record.workspace_id != workspace_id:
        raise ForbiddenError("group_id: belongs to another workspace", param="group_id", code="other_workspace")
    return chain


def _parents(tree: Tree, workspace_id: str, parent_group_id: str | None) -> Chain:
    if parent_group_id is None:
        return ()
    parents = tree.chain(parent_group_id)
    param = "hierarchy.parent_group_id"
    if not parents or parents[0].record.workspace_id != workspace_id:
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


def _check_slugs(slugs: Slugs, workspace_id: str, models: Sequence[ModelConfig], known: Collection[str]) -> None:
    missing = slugs.missing(workspace_id, [model.slug for model in models if model.slug not in known])
    if missing:
        index = next(at for at, model in enumerate(models) if model.slug == missing[0])
        param = f"models[{index}].slug"
        raise InvalidError(f"{param}: must name an endpoint of this workspace", param=param, code="unknown_slug")


def _check_cascade(record: GroupRecord, parents: Chain, descendants: Sequence[Group]) -> None:
    if not _cascades(record):
        return
    above = any(rules.exceeds(record.models, parent.record.models) for parent in parents)
    if above or any(rules.exceeds(below.record.models, record.models) for below in descendants):
        raise InvalidError(ABOVE_PARENT, param="models", code="limit_exceeds_parent")


def _cascades(record: GroupRecord) -> bool:
    return record.limit_enforcement is LimitEnforcement.CASCADING
