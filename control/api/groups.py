"""Routes of groups (contract 2.2).

Never judges a limit: that is the flow's; what is effective is metering's hierarchy.
"""

from datetime import datetime
from functools import partial

from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import Connection

from control.api import common, errors
from control.api.common import AtDesk, Limit, ManagementRequest
from control.core.records import Chain
from control.core.records import Group as StoredGroup
from control.flow import groups as flow
from control.flow import usage
from control.store.audit import Audit
from control.store.endpoints import Endpoints
from control.store.groups import Groups
from domain import limit_tree
from metering.store import transaction
from schemas.api import (
    CreateGroup,
    Group,
    GroupHierarchy,
    GroupMetadata,
    GroupTombstone,
    GroupUsage,
    Page,
    UpdateGroup,
)
from schemas.limits import ModelConfig


class GroupController(Controller):
    """``/v1/gateway/groups``."""

    path = "/gateway/groups"
    tags = ("Groups",)

    @post(status_code=200, operation_id="create_group", summary="Create a group", responses=errors.WRITE_ERRORS)
    async def create(self, request: ManagementRequest, desk: AtDesk, data: JSONBody[CreateGroup]) -> Group:
        """Create a root, or a child of one of the workspace's groups."""
        caller = request.auth

        def add(connection: Connection, now: datetime) -> Chain:
            tree, slugs, journal = Groups(connection), Endpoints(connection), Audit(connection, caller.key_prefix, now)
            return flow.create(tree, tree, slugs, journal, workspace_id=caller.workspace_id, body=data, now=now)

        return _body(await desk.change(add))

    @get(operation_id="list_groups", summary="List groups", responses=errors.READ_ERRORS)
    async def list_page(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        limit: Limit = common.DEFAULT_LIMIT,
        cursor: FromQuery[str | None] = None,
        external_entity_id: FromQuery[str | None] = None,
    ) -> Page[Group]:
        """List the workspace's groups, oldest first."""
        workspace_id, after = request.auth.workspace_id, common.after(cursor)

        def find(connection: Connection) -> list[Group]:  # the bodies too: a long page would hold up the event loop
            return [
                _body(chain) for chain in Groups(connection).page(workspace_id, after, limit + 1, external_entity_id)
            ]

        shown, pagination = common.page(await desk.look(find), limit, lambda group: group.id)
        return common.listed(shown, pagination)

    @get("/{group_id:str}", operation_id="get_group", summary="Get a group", responses=errors.READ_ERRORS)
    async def get_one(self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str]) -> Group:
        """Get one group."""
        workspace_id = request.auth.workspace_id
        return _body(await desk.look(lambda connection: flow.get(Groups(connection), workspace_id, group_id)))

    @patch("/{group_id:str}", operation_id="update_group", summary="Change a group", responses=errors.WRITE_ERRORS)
    async def update(
        self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str], data: JSONBody[UpdateGroup]
    ) -> Group:
        """Change a group's name, its whole set of models, or both.

        The whole group may be sent back; what never changes must be as it is.
        """
        caller = request.auth

        def replace(connection: Connection, now: datetime) -> Chain:
            tree = Groups(connection)
            before = _body(flow.get(tree, caller.workspace_id, group_id))
            common.keep_fixed(data, before, free={"metadata.name", "models"})
            return flow.update(
                tree,
                tree,
                Endpoints(connection),
                Audit(connection, caller.key_prefix, now),
                workspace_id=caller.workspace_id,
                group_id=group_id,
                body=data,
                now=now,
            )

        return _body(await desk.change(replace))

    @delete(
        "/{group_id:str}",
        status_code=200,
        operation_id="delete_group",
        summary="Delete a group",
        responses=errors.READ_ERRORS,
    )
    async def remove(self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str]) -> GroupTombstone:
        """Delete a group and every group below it; their keys stop working, their external ids are free again."""
        caller = request.auth

        def forget(connection: Connection, now: datetime) -> GroupTombstone:
            tree, journal = Groups(connection), Audit(connection, caller.key_prefix, now)
            gone = flow.delete(tree, tree, journal, workspace_id=caller.workspace_id, group_id=group_id, now=now)
            return GroupTombstone(id=group_id, metadata=_metadata(gone), deleted_at=now)

        return await desk.change(forget)

    @get(
        "/{group_id:str}/usage",
        operation_id="get_group_usage",
        summary="Get a group's use of its day limits",
        responses=errors.READ_ERRORS,
    )
    async def get_usage(self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str]) -> GroupUsage:
        """Get how far the usage limits in effect are used up today (UTC)."""
        workspace_id, today = request.auth.workspace_id, desk.clock().date()

        def find(connection: Connection) -> GroupUsage:
            chain = flow.get(Groups(connection), workspace_id, group_id)
            return usage.usage(chain, partial(transaction.limit_totals, connection), today)

        return await desk.look(find)


def _body(chain: Chain) -> Group:
    group = chain[0]
    record = group.record
    return Group(
        id=record.id,
        metadata=_metadata(group),
        models=tuple(_whole(model) for model in record.models),
        effective_models=limit_tree.effective_models([link.record for link in chain]),
        hierarchy=GroupHierarchy(limit_enforcement=record.limit_enforcement, parent_group_id=record.parent_group_id),
        created_at=group.created_at,
    )


def _metadata(group: StoredGroup) -> GroupMetadata:
    return GroupMetadata(name=group.name, external_entity_id=group.record.external_entity_id)


def _whole(model: ModelConfig) -> ModelConfig:
    """Set every field, so that a limit list which a body left out is shown as the empty list it is."""
    if len(model.model_fields_set) == len(ModelConfig.model_fields):
        return model
    return ModelConfig(slug=model.slug, rate_limits=model.rate_limits, usage_limits=model.usage_limits)
