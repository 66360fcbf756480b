"""Routes of developers' keys (contract 2.3).

Never shows a plaintext but in the answer that mints it.
"""

from datetime import timedelta
from typing import Annotated
from urllib.parse import unquote

from litestar import Controller, delete, get, patch, post
from litestar.exceptions import MethodNotAllowedException
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody
from sqlalchemy import Connection

from control.api import common, errors, paging
from control.api.common import AtDesk, IdempotencyKey, IfMatch, Limit, ManagementRequest
from control.api.openapi.description import DESCRIBED_BELOW
from control.core.bodies import api_key
from control.core.records import StoredApiKey
from control.flow import api_keys as flow
from control.flow import groups
from control.store.api_keys import SqlApiKeys
from control.unit_of_work import UnitOfWork
from metering.store import key_usage
from schemas.api import (
    ApiKey,
    CreateApiKey,
    CreateApiKeys,
    CreatedApiKey,
    CreatedApiKeys,
    Page,
    RegisterApiKey,
    RegisteredApiKey,
    RevokedApiKey,
    RotateApiKey,
    RotatedApiKey,
    UpdateApiKey,
)

Signature = Annotated[
    str | None,
    HeaderParameter(
        name="X-Baseten-Signature",
        description="Base64 of the raw body's Ed25519 signature by the private half of the workspace's public key.",
    ),
]

_ROTATE = "/rotate"
"""Stands behind a prefix. The router takes all of a path for the prefix, so it is split off here."""

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

        def find(connection: Connection) -> ApiKey:
            key = flow.get(desk.unit(connection, caller), group_id, prefix)
            return api_key(key, key_usage.last_used(connection, group_id, [prefix]).get(prefix))

        return await desk.look(caller, find)

    @patch(
        "/{api_key_prefix:path}",
        operation_id="update_api_key",
        summary="Change a key",
        responses=errors.WRITE_ERRORS | errors.CHANGED,
    )
    async def update(  # noqa: PLR0917 - the framework gives them by name
        self,
        request: ManagementRequest,
        desk: AtDesk,
        group_id: FromPath[str],
        api_key_prefix: FromPath[str],
        data: JSONBody[UpdateApiKey],
        if_match: IfMatch = None,
    ) -> ApiKey:
        """Change a key's name, its end, its metadata, or whether it is disabled; in force within a second.

        The whole key may be sent back; what never changes must be as it is.
        """
        prefix = _prefix(request)
        changed = await desk.change(
            request.auth, lambda unit: flow.update(unit, group_id, prefix, data), if_match=if_match
        )
        used = await desk.look(request.auth, lambda connection: key_usage.last_used(connection, group_id, [prefix]))
        return api_key(changed, used.get(prefix))

    @post(
        "/{api_key_prefix:path}",
        status_code=200,
        operation_id="rotate_api_key",
        summary="Make a key's successor",
        responses=errors.REPEATABLE,
        opt={DESCRIBED_BELOW: _ROTATE},
    )
    async def rotate(  # noqa: PLR0917 - the framework gives them by name
        self,
        request: ManagementRequest,
        desk: AtDesk,
        group_id: FromPath[str],
        api_key_prefix: FromPath[str],
        data: JSONBody[RotateApiKey],
        key: IdempotencyKey = None,
    ) -> RotatedApiKey:
        """Make a key with this one's name, metadata and end; this one ends with the overlap, or earlier by its own end.

        The new key is shown this once.
        """
        prefix, overlap = _prefix(request, below=_ROTATE), timedelta(seconds=data.overlap_seconds)
        return await desk.post(request, RotatedApiKey, lambda unit: flow.rotate(unit, group_id, prefix, overlap), key)

    @delete(
        "/{api_key_prefix:path}",
        status_code=200,
        operation_id="revoke_api_key",
        summary="Revoke a key",
        responses=errors.READ_ERRORS | errors.CHANGED,
    )
    async def revoke(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        group_id: FromPath[str],
        api_key_prefix: FromPath[str],
        *,
        if_match: IfMatch = None,
    ) -> RevokedApiKey:
        """Revoke a key; within a second no proxy takes it any more."""
        prefix = _prefix(request)
        gone = await desk.change(request.auth, lambda unit: flow.revoke(unit, group_id, prefix), if_match=if_match)
        return RevokedApiKey(prefix=gone.record.prefix)


class RegisterPrefixController(_OneKeyController):
    """The same for prefixes that begin as a route of the collection does: it must not hide them."""

    path = "/gateway/groups/{group_id:str}/api_keys/register"
    include_in_schema = False


class BatchPrefixController(_OneKeyController):
    """The same for the other such route."""

    path = "/gateway/groups/{group_id:str}/api_keys/batch"
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
        "/batch",
        status_code=200,
        operation_id="create_api_keys",
        summary="Mint several keys",
        responses=errors.REPEATABLE,
    )
    async def create_batch(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        group_id: FromPath[str],
        data: JSONBody[CreateApiKeys],
        key: IdempotencyKey = None,
    ) -> CreatedApiKeys:
        """Mint at most 1,000 keys for the group, all or none; the plaintexts are shown this once."""
        return await desk.post(request, CreatedApiKeys, lambda unit: flow.mint_all(unit, group_id, data), key)

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
            found = SqlApiKeys(connection).page(group_id, after, limit + 1)
            used = key_usage.last_used(connection, group_id, [key.record.prefix for key in found])

            def shown(key: StoredApiKey) -> ApiKey:
                return api_key(key, used.get(key.record.prefix))

            return paging.filled(found, limit, shown, lambda key: common.id_cursor(key.id))

        return await desk.look(caller, find)


def _prefix(request: ManagementRequest, below: str = "") -> str:
    """Return the prefix as the path says it: a lab's own key may hold slashes, which the router would tidy up.

    `below` is what the path must end with. Raise MethodNotAllowedException.
    """
    said = request.scope["raw_path"].decode("ascii").partition("/api_keys/")[2]
    if not said.endswith(below):
        raise MethodNotAllowedException(headers={"allow": "DELETE, GET, PATCH"})
    return unquote(said.removesuffix(below))
