"""Routes of groups (spec 2.2).

Never judges a limit: that is the flow's; what is effective is metering's hierarchy.
"""

from datetime import datetime

from litestar import Controller, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import Connection

from control.api import common, errors
from control.api.common import AtDesk, Limit, ManagementRequest
from control.core.records import Chain
from control.flow import groups as flow
from control.store.endpoints import Endpoints
from control.store.groups import Groups
from metering.core import hierarchy
from schemas.api import CreateGroup, Group, GroupHierarchy, GroupMetadata, Page, UpdateGroup
from schemas.limits import ModelConfig


class GroupController(Controller):
    """``/v1/gateway/groups``."""

    path = "/gateway/groups"
    tags = ("Groups",)

    @post(status_code=200, operation_id="create_group", summary="Create a group", responses=errors.WRITE_ERRORS)
    async def create(self, request: ManagementRequest, desk: AtDesk, data: JSONBody[CreateGroup]) -> Group:
        """Create a root, or a child of one of the workspace's groups."""
        workspace_id = request.auth.workspace_id

        def add(connection: Connection, now: datetime) -> Chain:
            tree = Groups(connection)
            return flow.create(tree, tree, Endpoints(connection), workspace_id=workspace_id, body=data, now=now)

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
        found = await desk.look(
            lambda connection: Groups(connection).page(workspace_id, after, limit + 1, external_entity_id)
        )
        shown, pagination = common.page(found, limit, lambda chain: chain[0].record.id)
        return common.listed(map(_body, shown), pagination)

    @get("/{group_id:str}", operation_id="get_group", summary="Get a group", responses=errors.READ_ERRORS)
    async def get_one(self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str]) -> Group:
        """Get one group."""
        workspace_id = request.auth.workspace_id
        return _body(await desk.look(lambda connection: flow.get(Groups(connection), workspace_id, group_id)))

    @patch("/{group_id:str}", operation_id="update_group", summary="Change a group", responses=errors.WRITE_ERRORS)
    async def update(
        self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str], data: JSONBody[UpdateGroup]
    ) -> Group:
        """Change a group's name, its whole set of models, or both."""
        workspace_id = request.auth.workspace_id

        def replace(connection: Connection, now: datetime) -> Chain:
            tree, slugs = Groups(connection), Endpoints(connection)
            return flow.update(tree, tree, slugs, workspace_id=workspace_id, group_id=group_id, body=data, now=now)

        return _body(await desk.change(replace))


def _body(chain: Chain) -> Group:
    group = chain[0]
    record = group.record
    return Group(
        id=record.id,
        metadata=GroupMetadata(name=group.name, external_entity_id=record.external_entity_id),
        models=tuple(_whole(model) for model in record.models),
        effective_models=hierarchy.effective_models([link.record for link in chain]),
        hierarchy=GroupHierarchy(limit_enforcement=record.limit_enforcement, parent_group_id=record.parent_group_id),
        created_at=group.created_at,
    )


def _whole(model: ModelConfig) -> ModelConfig:
    """Set every field, so that a limit list which a body left out is shown as the empty list it is."""
    return ModelConfig(slug=model.slug, rate_limits=model.rate_limits, usage_limits=model.usage_limits)
