"""Routes of secrets (contract 2.4).

Never shows a value.
"""

from litestar import Controller, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody
from sqlalchemy import Connection

from control.api import common, errors, paging
from control.api.common import AtDesk, IdempotencyKey, Limit, ManagementRequest
from control.core.records import StoredSecret
from control.flow import secrets as flow
from control.store.secrets import SqlSecrets
from schemas.api import CreateSecret, Page, Secret, SecretTombstone


class SecretController(Controller):
    """``/v1/secrets``."""

    path = "/secrets"
    tags = ("Secrets",)

    @post(
        status_code=200,
        operation_id="save_secret",
        summary="Create a secret or replace its value",
        responses=errors.REPEATABLE,
    )
    async def save(
        self, request: ManagementRequest, desk: AtDesk, data: JSONBody[CreateSecret], key: IdempotencyKey = None
    ) -> Secret:
        """Keep a value under its name; where the name is known its value is replaced and its id stays."""
        return await desk.post(request, Secret, lambda unit: _body(flow.save(unit, desk.vault, data)), key)

    @get(operation_id="list_secrets", summary="List secrets", responses=errors.READ_ERRORS)
    async def list_page(
        self,
        request: ManagementRequest,
        desk: AtDesk,
        limit: Limit = common.DEFAULT_LIMIT,
        cursor: FromQuery[str | None] = None,
    ) -> Page[Secret]:
        """List the workspace's secrets, oldest first, without their values."""
        workspace_id, after = request.auth.workspace_id, common.after(cursor)

        def find(connection: Connection) -> Page[Secret]:
            found = SqlSecrets(connection).page(workspace_id, after, limit + 1)
            return paging.filled(found, limit, _body, lambda secret: common.id_cursor(secret.record.id))

        return await desk.look(request.auth, find)

    @delete(
        "/{secret_id:str}",
        status_code=200,
        operation_id="delete_secret",
        summary="Delete a secret",
        responses=errors.READ_ERRORS,
    )
    async def remove(self, request: ManagementRequest, desk: AtDesk, secret_id: FromPath[str]) -> SecretTombstone:
        """Delete a secret that no endpoint names."""
        gone = await desk.change(request.auth, lambda unit: flow.delete(unit, secret_id))
        return SecretTombstone(id=gone.record.id, name=gone.name)


def _body(secret: StoredSecret) -> Secret:
    return Secret(id=secret.record.id, name=secret.name, created_at=secret.created_at)
