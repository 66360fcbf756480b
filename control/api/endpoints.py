"""Routes of endpoints (contract 2.1)."""

from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import Connection

from control.api import common, errors, paging
from control.api.common import AtDesk, IdempotencyKey, IfMatch, Limit, ManagementRequest
from control.core import bodies
from control.flow import endpoints as flow
from control.store.endpoints import SqlEndpoints
from control.unit_of_work import UnitOfWork
from schemas.api import CreateEndpoint, Endpoint, EndpointTombstone, Page, UpdateEndpoint


class EndpointController(Controller):
    """``/v1/gateway/endpoints``."""

    path = "/gateway/endpoints"
    tags = ("Endpoints",)

    @post(status_code=200, operation_id="create_endpoint", summary="Create an endpoint", responses=errors.REPEATABLE)
    async def create(
        self, request: ManagementRequest, desk: AtDesk, data: JSONBody[CreateEndpoint], key: IdempotencyKey = None
    ) -> Endpoint:
        """Create an endpoint under one of the workspace's org prefixes."""
        private = desk.settings.allow_private_upstreams

        def add(unit: UnitOfWork) -> Endpoint:
            return bodies.endpoint(flow.create(unit, data, allow_private=private))

        return await desk.post(request, Endpoint, add, key)

    @get(operation_id="list_endpoints", summary="List endpoints", responses=errors.READ_ERRORS)
    async def list_page(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        limit: Limit = common.DEFAULT_LIMIT,
        cursor: FromQuery[str | None] = None,
        slug: FromQuery[str | None] = None,
    ) -> Page[Endpoint]:
        """List the workspace's endpoints, oldest first; with `slug` the one that has it, or none."""
        workspace_id, after = request.auth.workspace_id, common.after(cursor)

        def find(connection: Connection) -> Page[Endpoint]:
            found = SqlEndpoints(connection).page(workspace_id, after, limit + 1, slug)
            return paging.filled(found, limit, bodies.endpoint, lambda one: common.id_cursor(one.record.id))

        return await desk.look(request.auth, find)

    @get("/{endpoint_id:str}", operation_id="get_endpoint", summary="Get an endpoint", responses=errors.READ_ERRORS)
    async def get_one(self, request: ManagementRequest, desk: AtDesk, endpoint_id: FromPath[str]) -> Endpoint:
        """Get one endpoint."""
        caller = request.auth
        return bodies.endpoint(
            await desk.look(caller, lambda connection: flow.get(desk.unit(connection, caller), endpoint_id))
        )

    @patch(
        "/{endpoint_id:str}",
        operation_id="update_endpoint",
        summary="Change an endpoint",
        responses=errors.WRITE_ERRORS | errors.CHANGED,
    )
    async def update(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        endpoint_id: FromPath[str],
        data: JSONBody[UpdateEndpoint],
        if_match: IfMatch = None,
    ) -> Endpoint:
        """Change an endpoint's slug, its target, or both; groups keep naming the slug that they name.

        The whole endpoint may be sent back; what never changes must be as it is.
        """
        private = desk.settings.allow_private_upstreams
        changed = await desk.change(
            request.auth, lambda unit: flow.update(unit, endpoint_id, data, allow_private=private), if_match=if_match
        )
        return bodies.endpoint(changed)

    @delete(
        "/{endpoint_id:str}",
        status_code=200,
        operation_id="delete_endpoint",
        summary="Delete an endpoint",
        responses=errors.READ_ERRORS | errors.CHANGED,
    )
    async def remove(
        self, request: ManagementRequest, desk: AtDesk, endpoint_id: FromPath[str], if_match: IfMatch = None
    ) -> EndpointTombstone:
        """Delete an endpoint; its slug is free again."""
        gone = await desk.change(request.auth, lambda unit: flow.delete(unit, endpoint_id), if_match=if_match)
        return EndpointTombstone(id=gone.id, slug=gone.slug)
