"""Routes of developers' keys (spec 2.3).

Never shows a plaintext but in the answer that mints it.
"""

from datetime import datetime

from litestar import Controller, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import Connection

from control.api import common, errors
from control.api.common import AtDesk, Limit, ManagementRequest
from control.core.records import ApiKey as StoredApiKey
from control.flow import api_keys as flow
from control.flow import groups
from control.store.api_keys import ApiKeys
from control.store.groups import Groups
from schemas.api import ApiKey, CreateApiKey, CreatedApiKey, Page


class ApiKeyController(Controller):
    """``/v1/gateway/groups/{group_id}/api_keys``."""

    path = "/gateway/groups/{group_id:str}/api_keys"
    tags = ("API keys",)

    @post(status_code=200, operation_id="create_api_key", summary="Mint a key", responses=errors.WRITE_ERRORS)
    async def create(
        self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str], data: JSONBody[CreateApiKey]
    ) -> CreatedApiKey:
        """Mint a key for the group; the plaintext is shown this once."""
        workspace_id = request.auth.workspace_id

        def mint(connection: Connection, now: datetime) -> CreatedApiKey:
            groups.get(Groups(connection), workspace_id, group_id)
            return flow.mint(ApiKeys(connection), workspace_id, group_id, data, now)

        return await desk.change(mint)

    @get(operation_id="list_api_keys", summary="List a group's keys", responses=errors.READ_ERRORS)
    async def list_page(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        group_id: FromPath[str],
        limit: Limit = common.DEFAULT_LIMIT,
        cursor: FromQuery[str | None] = None,
    ) -> Page[ApiKey]:
        """List the group's keys, oldest first."""
        workspace_id, after = request.auth.workspace_id, common.after(cursor)

        def find(connection: Connection) -> list[StoredApiKey]:
            groups.get(Groups(connection), workspace_id, group_id)
            return list(ApiKeys(connection).page(group_id, after, limit + 1))

        shown, pagination = common.page(await desk.look(find), limit, lambda key: key.id)
        return common.listed(map(_body, shown), pagination)

    @get("/{api_key_prefix:str}", operation_id="get_api_key", summary="Get a key", responses=errors.READ_ERRORS)
    async def get_one(
        self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str], api_key_prefix: FromPath[str]
    ) -> ApiKey:
        """Get one key of the group, without its secret."""
        workspace_id = request.auth.workspace_id

        def find(connection: Connection) -> StoredApiKey:
            groups.get(Groups(connection), workspace_id, group_id)
            return flow.get(ApiKeys(connection), group_id, api_key_prefix)

        return _body(await desk.look(find))


def _body(key: StoredApiKey) -> ApiKey:
    return ApiKey(prefix=key.record.prefix, name=key.name)
