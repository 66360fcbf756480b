"""Routes of groups (contract 2.2)."""

import asyncio
from functools import partial

from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import Connection

from control.api import common, errors, paging
from control.api.common import AtDesk, IdempotencyKey, IfMatch, Limit, ManagementRequest
from control.core import bodies
from control.flow import groups as flow
from control.flow import usage
from control.store.groups import SqlGroups
from control.unit_of_work import UnitOfWork
from metering.store import transaction
from schemas.api import CreateGroup, Group, GroupTombstone, GroupUsage, Page, UpdateGroup


class GroupController(Controller):
    """``/v1/gateway/groups``."""

    path = "/gateway/groups"
    tags = ("Groups",)

    @post(status_code=200, operation_id="create_group", summary="Create a group", responses=errors.REPEATABLE)
    async def create(
        self, request: ManagementRequest, desk: AtDesk, data: JSONBody[CreateGroup], key: IdempotencyKey = None
    ) -> Group:
        """Create a root, or a child of one of the workspace's groups."""
        return await desk.post(request, Group, lambda unit: bodies.group(flow.create(unit, data)), key)

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

        def find(connection: Connection) -> Page[Group]:
            found = SqlGroups(connection).page(workspace_id, after, limit + 1, external_entity_id)
            return paging.filled(found, limit, bodies.group, lambda chain: common.id_cursor(chain[0].record.id))

        return await desk.look(request.auth, find)

    @get("/{group_id:str}", operation_id="get_group", summary="Get a group", responses=errors.READ_ERRORS)
    async def get_one(self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str]) -> Group:
        """Get one group."""
        caller = request.auth
        return await desk.look(
            caller, lambda connection: bodies.group(flow.get(desk.unit(connection, caller), group_id))
        )

    @patch(
        "/{group_id:str}",
        operation_id="update_group",
        summary="Change a group",
        responses=errors.WRITE_ERRORS | errors.CHANGED,
    )
    async def update(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        group_id: FromPath[str],
        data: JSONBody[UpdateGroup],
        if_match: IfMatch = None,
    ) -> Group:
        """Change a group's name, its whole set of models, or both.

        The whole group may be sent back; what never changes must be as it is.
        """
        chain = await desk.change(request.auth, lambda unit: flow.update(unit, group_id, data), if_match=if_match)
        return await asyncio.to_thread(bodies.group, chain)

    @delete(
        "/{group_id:str}",
        status_code=200,
        operation_id="delete_group",
        summary="Delete a group",
        responses=errors.READ_ERRORS | errors.CHANGED,
    )
    async def remove(
        self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str], if_match: IfMatch = None
    ) -> GroupTombstone:
        """Delete a group and every group below it; their keys stop working, their external ids are free again."""

        def forget(unit: UnitOfWork) -> GroupTombstone:
            gone = flow.delete(unit, group_id)
            return GroupTombstone(id=group_id, metadata=bodies.group_metadata(gone), deleted_at=unit.now)

        return await desk.change(request.auth, forget, if_match=if_match)

    @get(
        "/{group_id:str}/usage",
        operation_id="get_group_usage",
        summary="Get a group's use of its usage limits",
        responses=errors.READ_ERRORS,
    )
    async def get_usage(self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str]) -> GroupUsage:
        """Get how far the usage limits in effect are used up today, or this month (UTC)."""
        caller, today = request.auth, desk.clock().date()

        def find(connection: Connection) -> GroupUsage:
            chain = flow.get(desk.unit(connection, caller), group_id)
            return usage.usage(chain, partial(transaction.limit_totals, connection), today)

        return await desk.look(caller, find)
