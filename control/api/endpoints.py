"""Routes of endpoints (contract 2.1).

Never judges a body beyond its contract: that is the flow's.
"""

from datetime import datetime

from litestar import Controller, delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import Connection

from control.api import common, errors
from control.api.common import AtDesk, Desk, Limit, ManagementRequest
from control.auth import Caller
from control.core.records import Endpoint as StoredEndpoint
from control.flow import endpoints as flow
from control.store.audit import Audit
from control.store.endpoints import Endpoints
from control.store.secrets import Secrets
from schemas.api import CreateEndpoint, Endpoint, EndpointTombstone, Page, UpdateEndpoint
from schemas.config import EndpointRecord


class EndpointController(Controller):
    """``/v1/gateway/endpoints``."""

    path = "/gateway/endpoints"
    tags = ("Endpoints",)

    @post(status_code=200, operation_id="create_endpoint", summary="Create an endpoint", responses=errors.WRITE_ERRORS)
    async def create(self, request: ManagementRequest, desk: AtDesk, data: JSONBody[CreateEndpoint]) -> Endpoint:
        """Create an endpoint under one of the workspace's org prefixes."""
        caller = request.auth

        def add(connection: Connection, now: datetime) -> StoredEndpoint:
            judge, journal = _judge(desk, connection, caller), Audit(connection, caller.key_prefix, now)
            endpoints = Endpoints(connection)
            return flow.create(endpoints, judge, journal, workspace_id=caller.workspace_id, body=data, now=now)

        return _body(await desk.change(add))

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

    @patch(
        "/{endpoint_id:str}",
        operation_id="update_endpoint",
        summary="Change an endpoint",
        responses=errors.WRITE_ERRORS,
    )
    async def update(
        self, request: ManagementRequest, desk: AtDesk, endpoint_id: FromPath[str], data: JSONBody[UpdateEndpoint]
    ) -> Endpoint:
        """Change an endpoint's slug, its target, or both; groups keep naming the slug that they name.

        The whole endpoint may be sent back; what never changes must be as it is.
        """
        caller = request.auth

        def replace(connection: Connection, now: datetime) -> StoredEndpoint:
            endpoints = Endpoints(connection)
            before = _body(flow.get(endpoints, caller.workspace_id, endpoint_id))
            common.keep_fixed(data, before, free={"slug", "targets"})
            return flow.update(
                endpoints,
                _judge(desk, connection, caller),
                Audit(connection, caller.key_prefix, now),
                workspace_id=caller.workspace_id,
                endpoint_id=endpoint_id,
                body=data,
                now=now,
            )

        return _body(await desk.change(replace))

    @delete(
        "/{endpoint_id:str}",
        status_code=200,
        operation_id="delete_endpoint",
        summary="Delete an endpoint",
        responses=errors.READ_ERRORS,
    )
    async def remove(self, request: ManagementRequest, desk: AtDesk, endpoint_id: FromPath[str]) -> EndpointTombstone:
        """Delete an endpoint; its slug is free again."""
        caller = request.auth

        def forget(connection: Connection, now: datetime) -> EndpointRecord:
            journal = Audit(connection, caller.key_prefix, now)
            return flow.delete(
                Endpoints(connection), journal, workspace_id=caller.workspace_id, endpoint_id=endpoint_id, now=now
            )

        gone = await desk.change(forget)
        return EndpointTombstone(id=gone.id, slug=gone.slug)


def _judge(desk: Desk, connection: Connection, caller: Caller) -> flow.Targets:
    private = desk.settings.allow_private_upstreams
    return flow.Targets(Secrets(connection), caller.workspace_id, allow_private=private)


def _body(endpoint: StoredEndpoint) -> Endpoint:
    return Endpoint(
        id=endpoint.record.id,
        slug=endpoint.record.slug,
        region=endpoint.region,
        targets=(endpoint.record.target,),
        created_at=endpoint.record.created_at,
        updated_at=endpoint.updated_at,
    )
