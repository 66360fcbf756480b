"""Routes of developers' keys (contract 2.3).

Never shows a plaintext but in the answer that mints it.
"""

from typing import Annotated
from urllib.parse import unquote

from litestar import Controller, delete, get, post
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody
from sqlalchemy import Connection

from control.api import common, errors, paging
from control.api.common import AtDesk, IdempotencyKey, Limit, ManagementRequest
from control.core.records import ApiKey as StoredApiKey
from control.flow import api_keys as flow
from control.flow import groups
from control.store.api_keys import ApiKeys
from control.unit_of_work import UnitOfWork
from schemas.api import ApiKey, CreateApiKey, CreatedApiKey, Page, RegisterApiKey, RegisteredApiKey, RevokedApiKey

Signature = Annotated[
    str | None,
    HeaderParameter(
        name="X-Baseten-Signature",
        description="Base64 of the raw body's Ed25519 signature by the private half of the workspace's public key.",
    ),
]

_NAMELESS = CreateApiKey()
"""What no body at all asks for."""


class _OneKeyController(Controller):
    """What is asked of one key, by its prefix."""

    @get("/{api_key_prefix:path}", operation_id="get_api_key", summary="Get a key", responses=errors.READ_ERRORS)
    async def get_one(
        self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str], api_key_prefix: FromPath[str]
    ) -> ApiKey:
        """Get one key of the group, without its secret."""
        caller, prefix = request.auth, _prefix(request)
        return _body(
            await desk.look(caller, lambda connection: flow.get(desk.unit(connection, caller), group_id, prefix))
        )

    @delete(
        "/{api_key_prefix:path}",
        status_code=200,
        operation_id="revoke_api_key",
        summary="Revoke a key",
        responses=errors.READ_ERRORS,
    )
    async def revoke(
        self, request: ManagementRequest, desk: AtDesk, group_id: FromPath[str], api_key_prefix: FromPath[str]
    ) -> RevokedApiKey:
        """Revoke a key; within a second no proxy takes it any more."""
        prefix = _prefix(request)
        gone = await desk.change(request.auth, lambda unit: flow.revoke(unit, group_id, prefix))
        return RevokedApiKey(prefix=gone.record.prefix)


class ReservedPrefixController(_OneKeyController):
    """The same for prefixes that begin as a route of the collection does: it must not hide them."""

    path = "/gateway/groups/{group_id:str}/api_keys/register"
    include_in_schema = False


class ApiKeyController(_OneKeyController):
    """``/v1/gateway/groups/{group_id}/api_keys``."""

    path = "/gateway/groups/{group_id:str}/api_keys"
    tags = ("API keys",)

    @post(status_code=200, operation_id="create_api_key", summary="Mint a key", responses=errors.REPEATABLE)
    async def create(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        group_id: FromPath[str],
        data: JSONBody[CreateApiKey] = _NAMELESS,
        key: IdempotencyKey = None,
    ) -> CreatedApiKey:
        """Mint a key for the group; the plaintext is shown this once."""
        return await desk.post(request, CreatedApiKey, lambda unit: flow.mint(unit, group_id, data), key)

    @post(
        "/register",
        status_code=200,
        operation_id="register_api_key",
        summary="Register a key of the lab's own",
        responses=errors.REPEATABLE,
    )
    async def register(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        group_id: FromPath[str],
        data: JSONBody[RegisterApiKey],
        *,
        signature: Signature = None,
        key: IdempotencyKey = None,
    ) -> RegisteredApiKey:
        """Take over a key that the lab made; the request is signed with the workspace's Ed25519 key."""
        raw = await request.body()

        def keep(unit: UnitOfWork) -> RegisteredApiKey:
            flow.register(unit, group_id, data, signature, raw)
            return RegisteredApiKey(ok=True)

        return await desk.post(request, RegisteredApiKey, keep, key)

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
        caller, after = request.auth, common.after(cursor)

        def find(connection: Connection) -> Page[ApiKey]:
            groups.get(desk.unit(connection, caller), group_id)
            found = ApiKeys(connection).page(group_id, after, limit + 1)
            return paging.filled(found, limit, _body, lambda key: common.id_cursor(key.id))

        return await desk.look(caller, find)


def _prefix(request: ManagementRequest) -> str:
    """Return the prefix as the path says it: a lab's own key may hold slashes, which the router would tidy up."""
    return unquote(request.scope["raw_path"].decode("ascii").partition("/api_keys/")[2])


def _body(key: StoredApiKey) -> ApiKey:
    return ApiKey(prefix=key.record.prefix, name=key.name, created_at=key.created_at)
