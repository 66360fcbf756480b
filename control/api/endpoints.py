"""Routes of endpoints (spec 2.1).

Never judges a body beyond its contract: that is the flow's.
"""

from litestar import Controller, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from control.api import common, errors
from control.api.common import AtDesk, Limit, ManagementRequest
from control.core.records import Endpoint as StoredEndpoint
from control.flow import endpoints as flow
from control.store.endpoints import Endpoints
from schemas.api import CreateEndpoint, Endpoint, Page


class EndpointController(Controller):
    """``/v1/gateway/endpoints``."""

    path = "/gateway/endpoints"
    tags = ("Endpoints",)

    @post(status_code=200, operation_id="create_endpoint", summary="Create an endpoint", responses=errors.WRITE_ERRORS)
    async def create(self, request: ManagementRequest, desk: AtDesk, data: JSONBody[CreateEndpoint]) -> Endpoint:
        """Create an endpoint under one of the workspace's org prefixes."""
        workspace_id, private = request.auth.workspace_id, desk.settings.allow_private_upstreams
        endpoint = await desk.change(
            lambda connection, now: flow.create(Endpoints(connection), workspace_id, data, now, allow_private=private)
        )
        return _body(endpoint)

    @get(operation_id="list_endpoints", summary="List endpoints", responses=errors.READ_ERRORS)
    async def list_page(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        limit: Limit = common.DEFAULT_LIMIT,
        cursor: FromQuery[str | None] = None,
    ) -> Page[Endpoint]:
        """List the workspace's endpoints, oldest first."""
        workspace_id, after = request.auth.workspace_id, common.after(cursor)
        found = await desk.look(lambda connection: Endpoints(connection).page(workspace_id, after, limit + 1))
        shown, pagination = common.page(found, limit, lambda endpoint: endpoint.record.id)
        return common.listed(map(_body, shown), pagination)

    @get("/{endpoint_id:str}", operation_id="get_endpoint", summary="Get an endpoint", responses=errors.READ_ERRORS)
    async def get_one(self, request: ManagementRequest, desk: AtDesk, endpoint_id: FromPath[str]) -> Endpoint:
        """Get one endpoint."""
        workspace_id = request.auth.workspace_id
        return _body(await desk.look(lambda connection: flow.get(Endpoints(connection), workspace_id, endpoint_id)))


def _body(endpoint: StoredEndpoint) -> Endpoint:
    return Endpoint(
        id=endpoint.record.id,
        slug=endpoint.record.slug,
        region=endpoint.region,
        targets=(endpoint.record.target,),
        created_at=endpoint.record.created_at,
        updated_at=endpoint.updated_at,
    )
